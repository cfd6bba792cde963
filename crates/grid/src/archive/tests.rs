use super::*;
use crate::Outcome;
use bytes::Bytes;
use object_store::memory::InMemory;
use std::sync::Arc;
use tidemill_batch::protocol::submission;

const HOUR: Duration = Duration::from_secs(3600);

fn archive() -> (Archive, Objects) {
    let store: Objects = Arc::new(InMemory::new());
    (Archive::new(store.clone(), ""), store)
}

fn record(task: u64, bytes: &[u8]) -> Record {
    let outcome = Outcome::Value(bytes.len() as u32, Bytes::copy_from_slice(bytes));
    Record { task, attempt: 1, run_us: 10 * task, made_by: "w1 python 3".into(), outcome }
}

fn failed(task: u64, class: Option<&str>) -> Record {
    let outcome = Outcome::Failed { class: class.map(str::to_owned), message: "why".into() };
    Record { task, attempt: 0, run_us: 0, made_by: "".into(), outcome }
}

fn contents() -> Contents {
    let blobs = vec![(Holds::Function, Bytes::from_static(b"packed function"))];
    Contents { session: "j1".into(), facts: serde_json::json!({"name": "n"}), spec: serde_json::json!({}), blobs }
}

fn inputs() -> Vec<Bytes> {
    vec![
        submission::write([Bytes::from_static(b"one"), Bytes::new()].into_iter()),
        submission::write([Bytes::from_static(b"x")].into_iter()),
    ]
}

async fn written(archive: &Archive, records: Vec<Record>, at: Timestamp) -> Manifest {
    let records = futures::stream::iter(records.chunks(2).map(|c| Ok(c.to_vec())).collect::<Vec<_>>()).boxed();
    let inputs = futures::stream::iter(inputs().into_iter().map(Ok)).boxed();
    archive.write(contents(), records, inputs, at).await.unwrap()
}

async fn read(archive: &Archive, manifest: &Manifest) -> Result<Vec<Record>> {
    Ok(archive.records(manifest).try_collect::<Vec<_>>().await?.concat())
}

#[tokio::test]
async fn what_is_archived_comes_back_and_again_gives_the_same_bytes() {
    let (archive, store) = archive();
    // A result larger than a part, beside small ones, gets a part of its own.
    let large: Vec<u8> = (0..20_000_000_u32).map(|i| (i / 7) as u8).collect();
    let cancelled = Record { outcome: Outcome::Cancelled { message: "c".into() }, ..failed(4, None) };
    let records = vec![record(3, b"three"), record(0, &large), failed(1, Some("error")), failed(2, None), cancelled];
    let manifest = written(&archive, records.clone(), Timestamp(5)).await;
    assert_eq!((manifest.tasks, manifest.records), (3, 5));
    assert_eq!(manifest.parts.iter().filter(|p| p.holds == Holds::Results).count(), 3);
    assert_eq!(archive.manifest("j1").await.unwrap(), manifest);
    assert_eq!(read(&archive, &manifest).await.unwrap(), records);
    assert_eq!(archive.inputs(&manifest).try_collect::<Vec<_>>().await.unwrap().concat(), inputs());
    assert_eq!(archive.blob(&manifest, Holds::Function).await.unwrap().unwrap(), "packed function");
    assert_eq!(archive.blob(&manifest, Holds::Setup).await.unwrap(), None);
    archive.verify(&manifest).await.unwrap();
    let again = written(&archive, records, Timestamp(9)).await;
    assert_eq!((again.archived_us, &again.parts), (9, &manifest.parts), "the parts have the same hashes");
    archive.delete("j1").await.unwrap();
    assert!(archive.find("j1").await.unwrap().is_none());
    assert!(store.list(None).next().await.is_none(), "nothing is left");
}

#[tokio::test]
async fn damage_is_found_and_the_part_is_named() {
    let (archive, store) = archive();
    let manifest = written(&archive, vec![record(0, b"value")], Timestamp(0)).await;
    for part in &manifest.parts {
        let at = path("j1", &part.name);
        let good = objects::get(store.as_ref(), &at).await.unwrap();
        let mut bad = good.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        for damage in [Bytes::from(bad), good.slice(..good.len() - 1), Bytes::new()] {
            objects::put(store.as_ref(), &at, damage).await.unwrap();
            let error = archive.verify(&manifest).await.unwrap_err();
            assert_eq!(error.kind(), tidemill_base::ErrorKind::Corrupt);
            assert!(error.to_string().contains(&part.name), "{error}");
        }
        objects::put(store.as_ref(), &at, good).await.unwrap();
    }
    archive.verify(&manifest).await.unwrap();
}

#[tokio::test]
async fn a_retrieval_is_due_after_the_delay_and_ends() {
    let (archive, _) = archive();
    let start = Timestamp(1_000_000_000);
    let at = |hours: u32| start + HOUR * hours;
    assert!(archive.restore("j1", start, HOUR, HOUR).await.unwrap_err().to_string().contains("is not archived"));
    written(&archive, vec![record(0, b"value")], start).await;
    assert!(archive.readable("j1", start).await.unwrap_err().to_string().contains("tidemill grid restore j1"));
    let standing = archive.restore("j1", start, 2 * HOUR, 3 * HOUR).await.unwrap();
    let Standing::Restoring(retrieval) = standing else { panic!("{standing:?}") };
    assert_eq!((Timestamp(retrieval.due_us), Timestamp(retrieval.until_us)), (at(2), at(5)));
    assert!(archive.readable("j1", at(1)).await.unwrap_err().to_string().contains("can be read in 1h"));
    assert_eq!(archive.restore("j1", at(1), 2 * HOUR, 3 * HOUR).await.unwrap(), standing, "asking again does not begin again");
    archive.readable("j1", at(2)).await.unwrap();
    let Standing::Restored(longer) = archive.restore("j1", at(4), 2 * HOUR, 3 * HOUR).await.unwrap() else { panic!("it is there") };
    assert_eq!(Timestamp(longer.until_us), at(7));
    assert_eq!(archive.standing("j1", at(7)).await.unwrap(), Standing::Archived);
    assert_eq!(archive.restore("j1", at(8), Duration::ZERO, HOUR).await.unwrap().as_str(), "restored");
}

#[tokio::test]
async fn archives_are_kept_for_so_long() {
    let (archive, _) = archive();
    written(&archive, Vec::new(), Timestamp(0)).await;
    assert_eq!(archive.sessions().await.unwrap(), ["j1"]);
    assert_eq!(archive.retire(Timestamp(0) + HOUR, 2 * HOUR).await.unwrap(), 0);
    assert_eq!(archive.retire(Timestamp(0) + 2 * HOUR, 2 * HOUR).await.unwrap(), 1);
    assert_eq!(archive.sessions().await.unwrap(), Vec::<String>::new());
}
