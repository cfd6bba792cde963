//! What the embedded drivers find in their data folder: records that something else may have written, and what a crash leaves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_base::{Env, ErrorKind, Timestamp};
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
use tidemill_blocks::table::{Condition, Key, Range, Write, read_all, sort_u64, unsort_u64};
use tidemill_embedded::{Embedded, objects, queue, table};
use tidemill_fuzz::{Settings, fuzz, shape};

use crate::{block_on, refused, text};

/// The first byte chooses the record. What is read is written anew as it was.
#[test]
fn records() {
    let settings = QueueSettings {
        max_receives: Some(5),
        dead_letter: Some("batch.dead".into()),
        retention: Duration::from_secs(9),
        recoverable: false,
    };
    let mut examples: Vec<Vec<u8>> = vec![
        [vec![0], 7_u32.to_be_bytes().to_vec(), 9_u64.to_be_bytes().to_vec(), 5_i64.to_be_bytes().to_vec()].concat(),
        [vec![1, 0], b"a body".to_vec()].concat(),
        [vec![1, 2], vec![1; 16], b"a dead one".to_vec()].concat(),
        [vec![2], vec![3; 20]].concat(),
        postcard::to_extend(&(7_u32, settings), vec![3]).unwrap(),
        [vec![4], vec![5; 16], b"value".to_vec()].concat(),
        [vec![5], 5_i64.to_be_bytes().to_vec(), vec![1, 0, 2, b'p', b'q', 0, 1, b's'], b"value".to_vec()].concat(),
        [vec![6], vec![7; 20]].concat(),
        postcard::to_extend(&(3_u32, 300_u64), vec![7]).unwrap(),
    ];
    let blob = (9_u64, 10_u64, [7_u8; 16], true);
    let attributes = vec![(3_u8, String::new(), "text/csv".to_owned()), (255, "owner".into(), "ada".into())];
    examples.push(postcard::to_extend(&(10_u64, [7_u8; 16], 0_u32, 5_i64, &attributes, vec![blob]), vec![8]).unwrap());
    examples.push(postcard::to_extend(&("photos/u", attributes, 5_i64), vec![9]).unwrap());
    examples.push(postcard::to_extend(&blob, vec![10]).unwrap());
    for example in &examples {
        assert_ne!(record(example), shape("no record"), "an example is no record: {example:?}");
    }
    fuzz("records", Settings { runs: 60_000, examples, tokens: &["photos/", "\0\0\0\0"], ..Settings::default() }, record);
}

fn record(input: &[u8]) -> u64 {
    let Some((kind, stored)) = input.split_first() else { return shape("empty") };
    let no_record = |e: &tidemill_base::Error| {
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
        shape("no record")
    };
    // Postcard takes numbers that are written longer than they have to be, so what is written anew is read again instead.
    match kind % 11 {
        0 => {
            let queue = stored.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            queue::fuzz::message_key(queue, stored).map_or_else(|e| no_record(&e), |anew| shape(anew == stored))
        }
        1 => match queue::fuzz::message(stored) {
            Ok((body, anew)) => {
                assert!(anew == stored && stored.ends_with(&body));
                shape(stored[0])
            }
            Err(e) => no_record(&e),
        },
        2 => match queue::fuzz::lease(&[0; 12], stored) {
            Ok((number, anew)) => {
                assert_eq!((number, anew.as_slice()), (0, &stored[..20]));
                shape("lease")
            }
            Err(e) => no_record(&e),
        },
        3 => twice(stored, queue::fuzz::settings),
        4 => match table::fuzz::item(stored) {
            Ok(anew) => {
                assert_eq!(anew, stored);
                shape("item")
            }
            Err(e) => no_record(&e),
        },
        5 => match table::fuzz::change(stored) {
            Ok((entry, anew)) => {
                // A flag of any other value than one says that the item was deleted, and then there is no value.
                assert!(anew == stored || stored[8] != 1, "{entry:?}");
                shape(entry.value.is_some())
            }
            Err(e) => no_record(&e),
        },
        6 => match table::fuzz::expiry(stored) {
            Ok((at, anew)) => {
                assert_eq!(anew, stored);
                shape(at > Timestamp::ZERO)
            }
            Err(e) => no_record(&e),
        },
        7 => twice(stored, table::fuzz::record),
        8 => match objects::fuzz::object(stored) {
            Ok((meta, attributes, anew)) => {
                let (again, same, _) = objects::fuzz::object(&anew).unwrap();
                assert!(again == meta && same == attributes);
                shape("object")
            }
            Err(e) => no_record(&e),
        },
        9 => twice(stored, |stored| objects::fuzz::upload(stored).ok()),
        _ => twice(stored, |stored| objects::fuzz::part(stored).ok()),
    }
}

/// What is written anew is read again, and is then written the same.
fn twice(stored: &[u8], anew: impl Fn(&[u8]) -> Option<Vec<u8>>) -> u64 {
    let Some(first) = anew(stored) else { return shape("no record") };
    assert_eq!(anew(&first).as_ref(), Some(&first));
    shape("i".repeat(first.len().min(40)))
}

/// Names that callers hand back: a message's id, a receipt; and keys that have to sort as they are numbered.
#[test]
fn receipts() {
    fuzz("receipts", Settings { runs: 30_000, tokens: &["-", "ffffffffffffffff", "+1", "0x"], ..Settings::default() }, |input| {
        let text = text(input);
        let (id, receipt) = queue::fuzz::names(&text);
        if let Some(id) = &id {
            assert_eq!(queue::fuzz::names(id).0.as_ref(), Some(id));
        }
        if let Some(receipt) = &receipt {
            assert_eq!(queue::fuzz::names(receipt).1.as_ref(), Some(receipt));
        }
        let (partition, sort) = input.split_at(input.len() / 2);
        let key = Key::new(String::from_utf8_lossy(partition), sort.to_vec());
        let (stored, read) = table::fuzz::item_key(7, &key).unwrap();
        assert!(read == sort && stored.ends_with(sort));
        assert_eq!(unsort_u64(input).map(|n| sort_u64(n).to_vec()), (input.len() == 8).then(|| input.to_vec()));
        shape(format_args!("{} {}", id.is_some(), receipt.is_some()))
    });
}

/// A data folder as a crash may leave it: files of the store are cut short or changed at places that the input chooses. It opens and
/// holds only what was put there, in order and without gaps at the front of the queue; or it is refused as corrupt.
#[test]
fn crashed_store() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    block_on(written(&whole));
    let examples = vec![
        vec![0, 0, 10, 0],
        vec![0, 0, 200, 0],
        vec![1, 0, 50, 7],
        vec![1, 1, 50, 255],
        vec![2, 0, 0, 9],
        vec![0, 3, 9, 9, 1, 2, 90, 4],
    ];
    let settings = Settings { runs: 12, max_len: 16, examples, memory: 512 << 20, time: Duration::from_secs(20), ..Settings::default() };
    let mut number = 0;
    fuzz("crashed_store", settings, move |input| {
        number += 1;
        let data = folder.path().join(format!("run-{number}"));
        copy(&whole, &data);
        for damage in input.chunks_exact(4) {
            harm(&data, damage);
        }
        let answer = block_on(reopened(&data));
        std::fs::remove_dir_all(&data).unwrap();
        answer
    });
}

const MESSAGES: u8 = 40;

async fn written(data: &Path) {
    let embedded = Embedded::open(data, Env::system()).unwrap();
    let (queue, table) = (embedded.queue(), embedded.table());
    queue.ensure("q", QueueSettings::default()).await.unwrap();
    table.ensure("t").await.unwrap();
    for n in 0..MESSAGES {
        queue.send("q", vec![NewMessage::now(vec![n; 60])]).await.unwrap();
        table.transact("t", vec![Write::put(Key::new("p", sort_u64(n.into())), vec![n; 40], Condition::Any)]).await.unwrap();
    }
    embedded.close();
}

/// Opens the folder and looks at everything.
async fn reopened(data: &Path) -> u64 {
    let embedded = match Embedded::open(data, Env::system()) {
        Ok(embedded) => embedded,
        Err(e) => return refused(&e),
    };
    let (queue, table) = (embedded.queue(), embedded.table());
    let received = queue.receive("q", Receive::up_to(1000, Duration::from_secs(60))).await;
    let items = read_all(table.as_ref(), "t", Range::all("p", 1000)).await;
    embedded.close();
    let (Ok(received), Ok(items)) = (received, items) else { return shape("some of it cannot be read") };
    for (n, delivery) in (0..).zip(&received) {
        assert_eq!(delivery.body, vec![n; 60], "message {n} is another, or lost while a later one is there");
    }
    for (n, item) in (0..).zip(&items) {
        assert_eq!((&item.key.sort, &item.value[..]), (&sort_u64(n.into()), vec![n; 40].as_slice()), "item {n}");
    }
    let lost = usize::from(MESSAGES) - received.len();
    assert!(items.len() + 1 >= received.len() && received.len() >= items.len(), "{} messages and {} items", received.len(), items.len());
    shape(if lost == 0 { "all of it" } else { "a beginning of it" })
}

/// One kind of damage, to the file of this number, at this place.
fn harm(data: &Path, damage: &[u8]) {
    let files = files(data);
    let file = &files[usize::from(damage[1]) % files.len()];
    let mut bytes = std::fs::read(file).unwrap();
    if bytes.is_empty() {
        return;
    }
    let used = bytes.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
    let at = used * usize::from(damage[2]) / 256;
    match damage[0] % 3 {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= damage[3].max(1),
        // A block that was not written.
        _ => bytes[at..].iter_mut().take(usize::from(damage[3]) * 8).for_each(|b| *b = 0),
    }
    std::fs::write(file, bytes).unwrap();
}

/// The store's journal first, which is what a crash is in the middle of.
fn files(data: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![data.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension().is_none_or(|e| e != "lock"));
    found.sort_by_key(|path| (path.extension().is_none_or(|e| e != "jnl"), path.clone()));
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
