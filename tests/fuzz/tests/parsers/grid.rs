//! What the grid is handed: sessions, submissions, packages, rows, and what it reads back from its own stores.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tidemill_batch::model::FailureClass;
use tidemill_batch::protocol::{ResultBody, ResultPage, Submission, TaskError, decode, encode, submission};
use tidemill_batch::service::{DeadResult, Delivered};
use tidemill_fuzz::{Settings, fuzz, shape};
use tidemill_grid::archive::fuzz as archive;
use tidemill_grid::packages::{Manifest, check_path, parse_reference};
use tidemill_grid::{Function, Outcome, Record, SessionSpec, records, stream};
use tidemill_query::payloads::{ColumnKind, Cut, Encoding, FileKind, JsonToArrow, Split, split};

use crate::{refused, text};

/// Numbers are no part of a shape, but none, one and many are different places in the code.
fn many(n: usize) -> &'static str {
    ["none", "one", "two", "three", "more"][n.min(4)]
}

/// What is accepted is a session with one stage, and is the same when it is written and read again.
#[test]
fn sessions() {
    let tokens = &[
        "\"function\"",
        "\"packed\"",
        "{\"module\":\"a:b\"}",
        "\"packages\"",
        "\"calendars@2026-01\"",
        "\"retry\"",
        "\"attempts\"",
        "\"timeout\"",
        "\"30s\"",
        "\"memory\"",
        "\"env\"",
        "\"labels\"",
        "null",
        "-1",
        "1e99",
        "\\u0000",
    ];
    fuzz("sessions", Settings { tokens, ..Settings::default() }, |input| {
        let Ok(spec) = serde_json::from_slice::<SessionSpec>(input) else { return shape("not a session") };
        if let Err(e) = spec.check() {
            return refused(&e);
        }
        let again: SessionSpec = serde_json::from_slice(&serde_json::to_vec(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        let job = spec.to_job(&tidemill_grid::Stored::default());
        assert!(job.is_session() && job.stages.len() == 1);
        let kept: tidemill_batch::model::JobSpec = serde_json::from_slice(&serde_json::to_vec(&job).unwrap()).unwrap();
        assert_eq!(kept, job, "what the ledger keeps is another job");
        let kind = match spec.function {
            Function::Packed => "packed",
            Function::Module(_) => "module",
            Function::Name(_) => "name",
        };
        shape(format_args!("{kind} {} {}", spec.setup_function.is_some(), many(spec.packages.len())))
    });
}

fn with_dependencies(payloads: &[&[u8]], deps: &[&[u64]]) -> Vec<u8> {
    let mut out = b"TMS1".to_vec();
    out.extend(u32::try_from(payloads.len()).unwrap().to_le_bytes());
    out.extend(deps.iter().map(|d| u32::try_from(d.len()).unwrap()).sum::<u32>().to_le_bytes());
    payloads.iter().for_each(|p| out.extend(u32::try_from(p.len()).unwrap().to_le_bytes()));
    deps.iter().for_each(|d| out.extend(u32::try_from(d.len()).unwrap().to_le_bytes()));
    deps.iter().flat_map(|d| d.iter()).for_each(|d| out.extend(d.to_le_bytes()));
    payloads.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// Payloads are parts of what was sent, in its order and without gaps; the tasks of a part are those of the whole.
#[test]
fn submissions() {
    let plain = submission::write([Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")].into_iter()).to_vec();
    let examples = vec![plain, with_dependencies(&[b"one", b"two"], &[&[4, 2], &[submission::OWN]])];
    fuzz("submissions", Settings { examples, tokens: &["TMS1", "\0\0\0\u{80}"], ..Settings::default() }, |input| {
        let read = match Submission::parse(Bytes::copy_from_slice(input)) {
            Ok(read) => read,
            Err(e) => return refused(&e),
        };
        let payloads: Vec<Bytes> = (0..read.len()).map(|i| read.payload(i).unwrap()).collect();
        assert!(input.ends_with(&payloads.concat()) && read.payload(read.len()).is_none());
        assert_eq!(read.payload_bytes(0, read.len()), payloads.iter().map(Bytes::len).sum::<usize>());
        let part = Submission::parse(read.part(1, 2));
        match part {
            Ok(part) => assert!((0..part.len()).all(|i| part.payload(i) == read.payload(i + 1))),
            Err(_) => assert_eq!(read.len(), 1, "there is nothing after the first"),
        }
        let deps: Vec<u64> = (0..read.len()).flat_map(|i| read.dependencies(i, 1 << 20).collect::<Vec<_>>()).collect();
        assert!(read.has_dependencies() || deps.is_empty());
        let ordered = read.check_order(1 << 20).is_ok();
        let earlier = (0..read.len()).all(|i| read.dependencies(i, 1 << 20).all(|d| d < (1 << 20) + i as u64));
        assert_eq!(ordered, earlier);
        shape(format_args!("{} {} {ordered}", many(read.len()), many(deps.len())))
    });
}

/// What the server writes of a page of results, the client reads: every task once, with the bytes that the page has for it; and what is shown
/// and archived of it names the same tasks. Pages that are damaged are refused.
#[test]
fn result_pages() {
    let error = TaskError { kind: "ValueError".into(), message: "no".into(), traceback: "line 1".into(), value: vec![0x80] };
    let packed = encode(&error).unwrap();
    let page = |body: Vec<u8>, lens: Vec<u32>| ResultPage {
        range: 3,
        epoch: 1,
        seq: 2,
        attempt: 1,
        made_by: "tidemill-python 0.1.0".into(),
        tasks: vec![7, 9],
        ok: vec![1, 0],
        run_us: vec![5, 6],
        lens,
        body: ResultBody::Inline(body),
    };
    let good = page([b"ab".as_slice(), &packed].concat(), vec![2, u32::try_from(packed.len()).unwrap()]);
    let examples = vec![encode(&good).unwrap(), encode(&page(b"ab???".to_vec(), vec![2, 3])).unwrap()];
    fuzz("result_pages", Settings { examples, ..Settings::default() }, |input| {
        let Ok(page) = decode::<ResultPage>("results", input) else { return shape("no page") };
        if let Err(e) = page.check() {
            return refused(&e);
        }
        let ResultBody::Inline(body) = &page.body else { return shape("elsewhere") };
        let (body, tasks) = (Bytes::from(body.clone()), page.tasks.clone());
        let split = page.split(&body).unwrap();
        assert_eq!(split.iter().map(|(_, b)| b.len()).sum::<usize>(), body.len());
        // All that succeeded counted, and the last that failed is final.
        let succeeded: Vec<(u64, u64)> = tasks.iter().zip(&page.ok).filter(|(_, ok)| **ok == 1).map(|(t, _)| (*t, 1)).collect();
        let dead = tasks.iter().zip(&page.ok).rfind(|(_, ok)| **ok == 0);
        let dead = dead.map(|(t, _)| DeadResult { task: *t, class: Some(FailureClass::Error), message: "m".into() });
        let delivered = delivered(page, body, succeeded, dead.into_iter().collect());
        let shown = match records(&delivered) {
            Ok(shown) => shown,
            Err(e) => return refused(&e),
        };
        let frame = match stream::results(&delivered) {
            Ok(frame) => frame,
            Err(e) => return refused(&e),
        };
        let read = tidemill_client::fuzz::result_frames([&frame[..]]).unwrap();
        let [(1, outcomes, _)] = read.as_slice() else { panic!("one delivery became {} frames", read.len()) };
        let named = |tasks: Vec<u64>| tasks.into_iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(named(outcomes.iter().map(|o| o.task).collect()), named(shown.iter().map(|r| r.task).collect()));
        assert!(outcomes.iter().filter(|o| o.ok).all(|o| split.contains(&(o.task, o.bytes.clone()))));
        shape(format_args!("{} {}", many(outcomes.len()), many(outcomes.iter().filter(|o| o.ok).count())))
    });
}

fn delivered(page: ResultPage, body: Bytes, succeeded: Vec<(u64, u64)>, dead: Vec<DeadResult>) -> Delivered {
    Delivered { n: 1, page: Some(page), body, succeeded, dead, cancelled: None }
}

/// No path of a manifest leads out of a folder, or needs a file to be a folder; its digest depends on what it says and not on its order.
#[test]
fn package_manifests() {
    let tokens = &[
        "\"path\"",
        "\"../x\"",
        "\"a/b\"",
        "\"sha256\"",
        "\"size\"",
        "4294967297",
        "\"engine\"",
        "\"program\"",
        "\"executable\":true",
        "{package}",
    ];
    fuzz("package_manifests", Settings { tokens, ..Settings::default() }, |input| {
        let Ok(manifest) = serde_json::from_slice::<Manifest>(input) else { return shape("no manifest") };
        let manifest = match manifest.checked() {
            Ok(manifest) => manifest,
            Err(e) => return refused(&e),
        };
        let root = std::path::Path::new("/p");
        for file in &manifest.files {
            let place = root.join(&file.path);
            let plain = place.components().all(|c| matches!(c, std::path::Component::RootDir | std::path::Component::Normal(_)));
            assert!(plain && place.starts_with(root) && place != root, "{place:?}");
            check_path(&file.path).unwrap();
        }
        let mut turned = manifest.clone();
        turned.files.reverse();
        assert_eq!(turned.checked().unwrap().digest().unwrap(), manifest.digest().unwrap());
        let again: Manifest = serde_json::from_slice(&serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert_eq!(again.checked().unwrap().digest().unwrap(), manifest.digest().unwrap());
        shape(format_args!("{} {}", many(manifest.files.len()), manifest.engine.is_some()))
    });
}

/// `name@version` comes back as it was written.
#[test]
fn package_references() {
    fuzz("package_references", Settings { max_len: 256, tokens: &["@", "blobs", "deleting", "+"], ..Settings::default() }, |input| {
        let text = text(input);
        match parse_reference(&text) {
            Ok(pin) => {
                let written = if pin.version.is_empty() { pin.name.clone() } else { format!("{}@{}", pin.name, pin.version) };
                assert_eq!((written.as_str(), pin.digest.as_str()), (&*text, ""));
                shape(pin.version.is_empty())
            }
            Err(e) => refused(&e),
        }
    });
}

const CSV: &[u8] = b"id,desk,x\n1,rates,0.5\n2,fx,\n3,\"a,\"\"b\",1e3\n";

fn payloads(kind: FileKind, bytes: &Bytes, cut: &Cut) -> tidemill_base::Result<Vec<Bytes>> {
    let mut out = Vec::new();
    split(std::iter::once(Ok(("x".to_owned(), kind, bytes.clone()))), cut, &mut |payload| {
        out.push(payload);
        Ok(())
    })?;
    Ok(out)
}

fn count(payloads: &[Bytes]) -> usize {
    payloads.iter().map(|p| serde_json::from_slice::<Vec<serde_json::Value>>(p).unwrap().len()).sum()
}

/// A file of rows: whatever is divided, and however, the rows are all there once. The first byte says how.
fn rows(kind: FileKind, input: &[u8]) -> u64 {
    let Some((how, bytes)) = input.split_first() else { return shape("empty") };
    let bytes = Bytes::copy_from_slice(bytes);
    let by = |split| Cut { encoding: Encoding::Json, split, columns: Vec::new() };
    let found = match payloads(kind, &bytes, &by(Split::Rows(1 + usize::from(how % 7)))) {
        Ok(found) => found,
        Err(e) => return refused(&e),
    };
    let all = payloads(kind, &bytes, &by(Split::Rows(1_000_000))).unwrap();
    assert!(all.len() <= 1);
    assert_eq!(count(&found), count(&all));
    let grouped = match payloads(kind, &bytes, &by(Split::Group("desk".into()))) {
        Ok(grouped) => {
            assert_eq!(count(&grouped), count(&all));
            true
        }
        Err(e) => {
            refused(&e);
            false
        }
    };
    // An Arrow stream that we wrote is a file of rows, with the same rows.
    let arrow = payloads(kind, &bytes, &Cut { encoding: Encoding::Arrow, ..by(Split::Rows(1_000_000)) }).unwrap();
    let again: usize = arrow.iter().map(|p| count(&payloads(FileKind::Arrow, p, &by(Split::Rows(3))).unwrap())).sum();
    assert_eq!(again, count(&all));
    shape(format_args!("{} {grouped}", many(found.len())))
}

#[test]
fn rows_of_csv() {
    let examples = vec![[&[2_u8][..], CSV].concat(), b"\x01desk\n\n\"\"\nx\n".to_vec()];
    let tokens = &["desk", "\"", "\"\"", ",", "\r\n", "NaN", "1e400", "2026-01-02", "2026-01-02T03:04:05Z", "true"];
    let settings = Settings { runs: 4_000, examples, tokens, max_len: 512, memory: 16 << 20, ..Settings::default() };
    fuzz("rows_of_csv", settings, |input| rows(FileKind::Csv, input));
}

#[test]
fn rows_of_arrow() {
    let cut = Cut { encoding: Encoding::Arrow, split: Split::Rows(2), columns: Vec::new() };
    let streams = payloads(FileKind::Csv, &Bytes::from_static(CSV), &cut).unwrap();
    let examples = streams.iter().map(|s| [&[1_u8][..], &s[..]].concat()).chain([[
        &[3_u8][..],
        &tidemill_query::fuzz::arrow_file(&streams[0]).unwrap()[..],
    ]
    .concat()]);
    let settings = Settings { runs: 4_000, examples: examples.collect(), tokens: &["ARROW1"], memory: 16 << 20, ..Settings::default() };
    fuzz("rows_of_arrow", settings, |input| rows(FileKind::Arrow, input));
}

/// The rows of a database's answer, as PostgreSQL writes them in JSON.
#[test]
fn rows_of_sources() {
    let columns =
        [("id", ColumnKind::Int), ("desk", ColumnKind::Text), ("x", ColumnKind::Real), ("on", ColumnKind::Date), ("at", ColumnKind::Time)];
    let columns: Vec<(String, ColumnKind)> = columns.iter().map(|(n, k)| ((*n).to_owned(), *k)).collect();
    let tokens = &[
        "\"id\":",
        "\"at\":",
        "\"2026-01-02T03:04:05.000001+00:00\"",
        "\"2026-01-02\"",
        "\"infinity\"",
        "\"NaN\"",
        "null",
        "9223372036854775807",
    ];
    fuzz("rows_of_sources", Settings { runs: 10_000, tokens, ..Settings::default() }, |input| {
        let rows: Vec<String> = text(input).lines().map(str::to_owned).collect();
        let mut writer = JsonToArrow::new(&columns).unwrap();
        match writer.push(&rows) {
            Ok(first) => {
                let whole = Bytes::from([first, writer.finish().unwrap()].concat());
                let cut = Cut { encoding: Encoding::Json, split: Split::Rows(1_000_000), columns: Vec::new() };
                shape(many(count(&payloads(FileKind::Arrow, &whole, &cut).unwrap())))
            }
            Err(e) => refused(&e),
        }
    });
}

/// A part of an archive, whatever lies in its place. The first byte chooses what is read.
#[test]
fn archive_parts() {
    let record = |task, outcome| Record { task, attempt: 1, run_us: 7, made_by: "w1".into(), outcome };
    let failed = Outcome::Failed { class: Some("error".into()), message: "no".into() };
    let all = [record(1, Outcome::Value(3, Bytes::from_static(b"one"))), record(2, failed.clone()), record(300, failed)];
    let plain = archive::write(&all).unwrap();
    assert_eq!(archive::records(&Bytes::from(plain.clone())).unwrap(), all);
    let (packed, whole) = (archive::pack(&plain).unwrap(), plain.len() as u64);
    let examples = vec![[&[0_u8][..], &plain[..]].concat(), [&[1_u8][..], &plain[..]].concat(), [&[2_u8][..], &packed[..]].concat()];
    fuzz("archive_parts", Settings { examples, ..Settings::default() }, |input| {
        let Some((what, rest)) = input.split_first() else { return shape("empty") };
        let plain = Bytes::copy_from_slice(rest);
        match what % 3 {
            0 => archive::records(&plain).map_or_else(
                |e| refused(&e),
                |read| {
                    let again = archive::records(&archive::write(&read).unwrap().into()).unwrap();
                    assert_eq!(again, read);
                    shape(many(read.len()))
                },
            ),
            1 => archive::submissions(&plain).map_or_else(
                |e| refused(&e),
                |read| {
                    assert_eq!(read.iter().map(|s| s.len() + 4).sum::<usize>(), plain.len());
                    shape(format_args!("submissions {}", many(read.len())))
                },
            ),
            // The hash is right, so that only the packing can be wrong; what the manifest claims is not believed.
            _ => {
                let sha256 = format!("{:x}", Sha256::digest(rest));
                let claimed = if *what == 2 { whole } else { u64::from(*what).pow(6) };
                match archive::unpack(rest, sha256, claimed) {
                    Ok(read) => shape(format_args!("unpacked {}", read.len() as u64 == claimed)),
                    Err(e) => refused(&e),
                }
            }
        }
    });
}
