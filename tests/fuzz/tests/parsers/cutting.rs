//! How input is cut into tasks, against plain ways of doing the same.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use tidemill_base::{ErrorKind, Result};
use tidemill_batch::cut::manifest::ManifestInfo;
use tidemill_batch::cut::{CutResult, Cutting, Limits, Reader, StageDefinition, cut};
use tidemill_batch::model::{Boundary, InputRef, InputSpec, TaskInput};
use tidemill_batch::protocol::keys;
use tidemill_blocks::memory;
use tidemill_blocks::objects::Objects;
use tidemill_fuzz::{Settings, fuzz, shape};

use crate::{block_on, refused, text};

fn put(objects: &Objects, path: &Path, bytes: &[u8]) {
    block_on(objects.put(path, PutPayload::from(bytes.to_vec()))).unwrap();
}

/// What the input is cut into.
fn tasks_of(objects: &Objects, input: &InputSpec) -> Result<Vec<TaskInput>> {
    block_on(async {
        let mut quiet = |_| {};
        let limits = Limits { tasks: 1_000_000, objects: 1000 };
        let mut cutting = Cutting { objects, job: "j", stage: 0, limits, progress: &mut quiet };
        let CutResult { total, manifest, .. } = cut(input, &mut cutting).await?;
        let (reader, info) = (Reader::default(), manifest.unwrap());
        assert_eq!(info.entries, total);
        let mut out = Vec::new();
        for task in 0..total {
            out.push(reader.get(objects, "j", 0, &info, task).await?);
        }
        assert_eq!(reader.get(objects, "j", 0, &info, total).await.unwrap_err().kind(), ErrorKind::NotFound);
        Ok(out)
    })
}

/// The first byte chooses boundary and header, the second (and a repetition) the size of parts; the rest is the object.
#[test]
fn parts() {
    let tokens = &["\"", "\"\"", "\n", "\r\n", ",", "\n\n", "a,b,c\n", "\"x\ny\"\n"];
    let settings = Settings { runs: 1_500, tokens, memory: 4 << 20, memory_per_byte: 4096, ..Settings::default() };
    let objects = memory::objects();
    fuzz("parts", settings, move |input| {
        let [kind, size, body @ ..] = input else { return shape("short") };
        let boundary = [Boundary::Line, Boundary::Csv, Boundary::Byte][usize::from(kind % 3)];
        let header = kind & 4 != 0 && boundary != Boundary::Byte;
        // Large objects are read by windows; a few bytes make one when they are repeated.
        let body = if kind & 8 != 0 { body.repeat(100_000 / body.len().max(1)) } else { body.to_vec() };
        let bytes = if kind & 8 != 0 { (u64::from(*size) + 1) * 500 } else { u64::from(*size).max(1) };
        put(&objects, &Path::from("b/data.csv"), &body);
        let input = InputSpec::Parts { patterns: vec!["b/data.csv".to_owned()], bytes, boundary, header };
        let tasks = match tasks_of(&objects, &input) {
            Ok(tasks) => tasks,
            Err(e) => {
                let quotes = body.iter().filter(|b| **b == b'"').count() % 2 == 1;
                assert!(
                    records(&body, boundary).iter().all(|record| !has_content(record)) || header || (quotes && boundary == Boundary::Csv),
                    "{e}"
                );
                return refused(&e);
            }
        };
        let parts: Vec<InputRef> = tasks.into_iter().map(one_file).collect();
        check_parts(&body, boundary, header, bytes, &parts);
        shape(format_args!("{boundary:?} {header} {}", "i".repeat(parts.len().min(4))))
    });
}

fn one_file(task: TaskInput) -> InputRef {
    let TaskInput::Files { mut files, key: None } = task else { panic!("{task:?}") };
    assert_eq!(files.len(), 1);
    files.remove(0)
}

/// Every byte is in one part, parts end where records end, and none is longer than it has to be.
fn check_parts(body: &[u8], boundary: Boundary, header: bool, bytes: u64, parts: &[InputRef]) {
    let mut joined = Vec::new();
    let ends: Vec<usize> = records(body, boundary)
        .iter()
        .scan(0, |end, record| {
            *end += record.len();
            Some(*end)
        })
        .collect();
    let mut header_len = 0;
    for (number, part) in parts.iter().enumerate() {
        let (from, until) = (usize::try_from(part.offset).unwrap(), usize::try_from(part.offset + part.len).unwrap());
        assert_eq!(joined.len(), from, "part {number} begins where the one before ends");
        assert!(
            part.len > 0 && (boundary == Boundary::Byte || ends.binary_search(&until).is_ok()),
            "part {number} ends at {until}, records at {ends:?}"
        );
        joined.extend_from_slice(&body[from..until]);
        if number > 0 {
            header_len = part.header;
            assert_eq!(header, part.header > 0, "part {number}");
        }
        // All records but the last of a part are within its size, empty lines aside.
        let start = if number == 0 { from.max(usize::try_from(header_len_of(body, boundary, header)).unwrap()) } else { from };
        let inner = &ends[ends.partition_point(|end| *end <= start)..ends.partition_point(|end| *end < until)];
        let large = inner.iter().filter(|end| (**end - start) as u64 >= bytes);
        let over = large.into_iter().find(|end| has_content(&body[start..**end]) && has_content(&body[**end..until]));
        assert!(over.is_none() || boundary == Boundary::Line && header_len == 0 && header, "part {number} could have ended at {over:?}");
    }
    assert!(joined == body, "the parts are not the object");
    assert_eq!(header_len, if parts.len() > 1 { header_len_of(body, boundary, header) } else { 0 });
}

/// The first record that is not empty, and what is before it.
fn header_len_of(body: &[u8], boundary: Boundary, header: bool) -> u64 {
    if !header {
        return 0;
    }
    let mut end = 0;
    for record in records(body, boundary) {
        end += record.len();
        if has_content(record) {
            return end as u64;
        }
    }
    body.len() as u64
}

fn has_content(record: &[u8]) -> bool {
    record.iter().any(|b| !b"\r\n".contains(b))
}

/// The records of an object, cut byte by byte.
fn records(body: &[u8], boundary: Boundary) -> Vec<&[u8]> {
    let (mut out, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in body.iter().enumerate() {
        quoted ^= *byte == b'"' && boundary == Boundary::Csv;
        if boundary == Boundary::Byte || (*byte == b'\n' && !quoted) {
            out.push(&body[start..=at]);
            start = at + 1;
        }
    }
    if start < body.len() {
        out.push(&body[start..]);
    }
    out
}

/// The first byte says how many lines to a task.
#[test]
fn lines() {
    let tokens = &["\n", "\r\n", "\r", "\0", "\n\n\n", "\u{feff}", "\u{2028}"];
    let settings = Settings { runs: 6_000, tokens, memory: 4 << 20, memory_per_byte: 4096, ..Settings::default() };
    let objects = memory::objects();
    fuzz("lines", settings, move |input| {
        let [per_task, body @ ..] = input else { return shape("short") };
        put(&objects, &Path::from("b/list.txt"), body);
        let per_task = u64::from(*per_task % 9) + 1;
        let spec = InputSpec::Lines { object: "b/list.txt".to_owned(), per_task };
        let expected = std::str::from_utf8(body).ok().filter(|text| !text.is_empty() && !text.contains('\0')).map(|text| {
            let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
            let plain: Vec<&str> = lines.iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
            plain.chunks(usize::try_from(per_task).unwrap()).map(|some| TaskInput::Lines(some.join("\n"))).collect::<Vec<_>>()
        });
        match tasks_of(&objects, &spec) {
            Ok(tasks) => {
                assert_eq!(Some(&tasks), expected.as_ref());
                shape("i".repeat(tasks.len().min(5)))
            }
            Err(e) => {
                assert_eq!(expected, None, "{e}");
                refused(&e)
            }
        }
    });
}

/// A chunk of a manifest that something else has written, packed and plain.
#[test]
fn manifest_chunk() {
    let file = InputRef { path: "b/k".into(), name: "k".into(), offset: 7, len: 300, header: 12, whole: false };
    let tasks = vec![
        TaskInput::Index(-5),
        TaskInput::Lines("one\ntwo".into()),
        TaskInput::Files { files: vec![file.clone(), file], key: Some("north".into()) },
    ];
    let plain = postcard::to_stdvec(&tasks).unwrap();
    let examples = vec![[b"p", plain.as_slice()].concat(), [b"z", zstd::bulk::compress(&plain, 1).unwrap().as_slice()].concat()];
    // Packed bytes may unfold to what one chunk may hold.
    let settings = Settings { runs: 12_000, examples, memory: 64 << 20, ..Settings::default() };
    let objects = memory::objects();
    let info = ManifestInfo {
        entries: 3,
        chunks: 1,
        bytes: 9,
        runs: vec![tidemill_batch::cut::manifest::ChunkRun { first_task: 0, first_chunk: 0, entries: 3 }],
    };
    fuzz("manifest_chunk", settings, move |input| {
        let [form, body @ ..] = input else { return shape("short") };
        let stored = if form % 2 == 0 { zstd::bulk::compress(body, 1).unwrap() } else { body.to_vec() };
        put(&objects, &keys::manifest_chunk("j", 0, 0), &stored);
        let outcome = block_on(async { Reader::default().get(&objects, "j", 0, &info, 2).await });
        match outcome {
            Ok(task) => {
                let bytes = postcard::to_stdvec(&task).unwrap();
                assert_eq!(postcard::from_bytes::<TaskInput>(&bytes).unwrap(), task);
                shape(format_args!("{:?}", std::mem::discriminant(&task)))
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt);
                refused(&e)
            }
        }
    });
}

/// A stage's definition that something else has written: every task it claims to have is found, or refused.
#[test]
fn stage_definition() {
    let tokens = &["\"manifest\":", "\"upstream\":", "\"runs\":", "\"Gather\"", "\"per_task\":", "null", "18446744073709551615", "0"];
    let settings = Settings { runs: 12_000, tokens, ..Settings::default() };
    let objects = memory::objects();
    fuzz("stage_definition", settings, move |input| {
        put(&objects, &keys::stage_definition("j", 0), text(input).as_bytes());
        let definition = match block_on(StageDefinition::load(&objects, "j", 0)) {
            Ok(definition) => definition,
            Err(e) => return refused(&e),
        };
        let mut shapes = 0;
        for task in [0, 1, definition.total / 2, definition.total.saturating_sub(1), definition.total, u64::MAX] {
            match definition.source(task) {
                Ok(_) => assert!(task < definition.total),
                Err(e) => shapes ^= refused(&e),
            }
            if let Some(manifest) = &definition.manifest {
                shapes ^= shape(manifest.locate(task).is_some());
            }
        }
        if let Some(upstream) = &definition.upstream {
            let _ = upstream.task_count();
        }
        let again: Bytes = serde_json::to_vec(&definition).unwrap().into();
        assert_eq!(serde_json::from_slice::<StageDefinition>(&again).unwrap(), definition);
        shapes
    });
}
