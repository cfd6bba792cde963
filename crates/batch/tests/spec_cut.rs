//! Inputs cut into tasks: what comes out, read back as a worker reads it, puts the input together again.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic anywhere")]

use std::sync::Arc;

use futures::stream;
use object_store::memory::InMemory;
use object_store::path::Path;
use proptest::prelude::*;
use tidemill_base::{ErrorKind, Result};
use tidemill_batch::cut::{self, CutResult, Cutting, Limits, Progress, Reader, StageDefinition};
use tidemill_batch::model::*;
use tidemill_batch::protocol::{OutputPage, StoredFile, TaskOutput};
use tidemill_batch::spec::CommandLine;
use tidemill_blocks::objects::{self, Objects};

const JOB: &str = "j1";

async fn store(contents: &[(&str, &[u8])]) -> Objects {
    let store: Objects = Arc::new(InMemory::new());
    for (path, bytes) in contents {
        objects::put(store.as_ref(), &Path::parse(path).unwrap(), bytes.to_vec()).await.unwrap();
    }
    store
}

async fn run(store: &Objects, input: &InputSpec, limits: Limits) -> Result<CutResult> {
    let mut progress = |_: Progress| {};
    let mut cutting = Cutting { objects: store, job: JOB, stage: 0, limits, progress: &mut progress };
    // The manager runs this on any thread.
    fn sendable<F: Future + Send>(f: F) -> F {
        f
    }
    sendable(cut::cut(input, &mut cutting)).await
}

async fn tasks(store: &Objects, result: &CutResult) -> Vec<TaskInput> {
    let info = result.manifest.as_ref().expect("a manifest");
    assert_eq!(info.entries, result.total);
    let reader = Reader::default();
    let mut out = Vec::new();
    for task in 0..result.total {
        out.push(reader.get(store, JOB, 0, info, task).await.unwrap());
    }
    out
}

async fn cut_all(store: &Objects, input: &InputSpec) -> Vec<TaskInput> {
    let result = run(store, input, Limits::default()).await.unwrap();
    tasks(store, &result).await
}

async fn refused(store: &Objects, input: &InputSpec) -> String {
    run(store, input, Limits::default()).await.unwrap_err().to_string()
}

fn some_objects(patterns: &[&str], per_task: u64) -> InputSpec {
    InputSpec::Objects { patterns: patterns.iter().map(|p| (*p).to_owned()).collect(), per_task }
}

fn names(task: &TaskInput) -> Vec<&str> {
    let TaskInput::Files { files, .. } = task else { panic!("{task:?}") };
    files.iter().map(|f| f.name.as_str()).collect()
}

#[tokio::test]
async fn objects_are_matched_sorted_and_grouped() {
    let store = store(&[
        ("in/b.csv", b"22"),
        ("in/a b.csv", b"1"),
        ("in/ü\u{1F600}.csv", b""),
        ("in/x/a b.csv", b"333"),
        ("in/c.txt", b""),
        ("out/b.csv", b""),
        ("in/[1]{2}.csv", b""),
        ("in/line%0Abreak.csv", b""),
    ])
    .await;
    let single = cut_all(&store, &some_objects(&["in/*.csv"], 1)).await;
    let single: Vec<_> = single.iter().flat_map(|t| names(t)).collect();
    assert_eq!(single, ["[1]{2}.csv", "a b.csv", "b.csv", "line%0Abreak.csv", "ü\u{1F600}.csv"]);
    let both = cut_all(&store, &some_objects(&["in/**/a*.csv", "in/b.csv", "in/b.*"], 2)).await;
    assert_eq!(both.iter().map(names).collect::<Vec<_>>(), [vec!["a b.csv", "b.csv"], vec!["a b.csv"]]);
    let whole = InputRef { path: "in/x/a b.csv".into(), name: "a b.csv".into(), offset: 0, len: 3, header: 0, whole: true };
    assert_eq!(both[1], TaskInput::Files { files: vec![whole], key: None });
    let unique = cut_all(&store, &some_objects(&["in/**/a*.csv"], 9)).await;
    assert_eq!(names(&unique[0]), ["a b.csv", "2-a b.csv"]);
}

#[tokio::test]
async fn a_pattern_without_a_match_is_refused_and_what_lies_nearby_is_named() {
    let store = store(&[("in/2025/a.csv", b""), ("in/2025/b.csv", b""), ("in/readme.md", b"")]).await;
    for (patterns, want) in [
        (&["in/2025/*.cvs"][..], "`in/2025/*.cvs` matches nothing; under `in/2025/` there is `in/2025/a.csv`, `in/2025/b.csv`"),
        (&["in/2025/a.cvs"], "`in/2025/a.cvs` matches nothing; under `in/2025/` there is `in/2025/a.csv`, `in/2025/b.csv`"),
        (&["in/*.md", "in/2026/*"], "`in/2026/*` matches nothing; under `in/` there is `in/2025/a.csv`, `in/2025/b.csv`, `in/readme.md`"),
        (&["other/**"], "`other/**` matches nothing: bucket `other` is empty; upload the input first"),
    ] {
        assert_eq!(refused(&store, &some_objects(patterns, 1)).await, want);
    }
    let few = Limits { objects: 1, ..Limits::default() };
    let e = run(&store, &some_objects(&["in/**"], 1), few).await.unwrap_err();
    assert_eq!(
        (e.kind(), e.to_string().as_str()),
        (ErrorKind::Exhausted, "`in/**` matches more than 1 objects; narrow it, or cut the job in several")
    );
}

#[tokio::test]
async fn a_long_array_costs_nothing_and_finds_its_index() {
    let store = store(&[]).await;
    let input = InputSpec::Array { first: -5, last: 9_999_994 };
    let result = run(&store, &input, Limits::default()).await.unwrap();
    assert_eq!(result, CutResult { total: 10_000_000, manifest: None, empty_objects: 0 });
    let line = CommandLine {
        input: tidemill_batch::spec::CommandInput::Array(-5, 9_999_994),
        argv: vec!["true".into()],
        ..CommandLine::default()
    };
    let mut job = line.into_job().unwrap();
    let spec = job.stages.remove(0);
    let definition = StageDefinition { job_name: "n".into(), spec, total: result.total, manifest: None, upstream: None };
    definition.store(&store, JOB, 3).await.unwrap();
    let definition = StageDefinition::load(&store, JOB, 3).await.unwrap();
    for (task, index) in [(0, -5), (9_999_999, 9_999_994)] {
        assert_eq!(definition.source(task).unwrap(), cut::InputSource::Ready(TaskInput::Index(index)));
    }
    assert_eq!(definition.source(10_000_000).unwrap_err().kind(), ErrorKind::NotFound);
    let e = run(&store, &InputSpec::Array { first: 0, last: 1_000_000_000 }, Limits::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Exhausted);
}

#[tokio::test]
async fn lines_are_grouped_and_the_last_needs_no_newline() {
    let store = store(&[("in/l", b"a\n\nb c\r\nlast"), ("in/empty", b""), ("in/raw", b"ok\n\xff\n")]).await;
    let lines = |object: &str, per_task| InputSpec::Lines { object: object.into(), per_task };
    let text = |t: &str| TaskInput::Lines(t.into());
    assert_eq!(cut_all(&store, &lines("in/l", 1)).await, [text("a"), text(""), text("b c"), text("last")]);
    assert_eq!(cut_all(&store, &lines("in/l", 3)).await, [text("a\n\nb c"), text("last")]);
    assert_eq!(refused(&store, &lines("in/none", 1)).await, "lines: there is no object `in/none`; upload it first");
    assert_eq!(refused(&store, &lines("in/empty", 1)).await, "lines: `in/empty` is empty, so there is nothing to do");
    let raw = refused(&store, &lines("in/raw", 1)).await;
    assert_eq!(raw, "`in/raw`: line 2 is not UTF-8 from byte 1 on; convert the file, or cut it with `parts`");
}

fn parts(patterns: &[&str], bytes: u64, boundary: Boundary, header: bool) -> InputSpec {
    InputSpec::Parts { patterns: patterns.iter().map(|p| (*p).to_owned()).collect(), bytes, boundary, header }
}

#[tokio::test]
async fn objects_without_a_record_make_no_part_and_are_counted() {
    let store = store(&[("in/a.csv", b"h\n1\n2\n"), ("in/b.csv", b""), ("in/c.csv", b"h\n"), ("in/d.csv", b"h\n\n\n")]).await;
    let result = run(&store, &parts(&["in/*"], 1, Boundary::Csv, true), Limits::default()).await.unwrap();
    assert_eq!((result.total, result.empty_objects), (2, 3));
    let cut = tasks(&store, &result).await;
    assert_eq!(cut.iter().flat_map(|t| names(t)).collect::<Vec<_>>(), ["a-000001.csv", "a-000002.csv"]);
    let e = refused(&store, &parts(&["in/b.csv", "in/c.csv"], 1, Boundary::Line, true)).await;
    assert_eq!(e, "parts: the 2 objects that `in/b.csv`, `in/c.csv` matches hold no record, so there is nothing to do");
}

#[tokio::test]
async fn quotes_that_never_close_are_named_with_their_place() {
    let store = store(&[("in/a.csv", b"h\n1,\"x\n2\n")]).await;
    let e = refused(&store, &parts(&["in/a.csv"], 1, Boundary::Csv, true)).await;
    let want = "`in/a.csv` ends within quotes that open at byte 4, so this is not CSV as of RFC 4180; mend it, or use boundary \"line\"";
    assert_eq!(e, want);
}

#[tokio::test]
async fn a_line_longer_than_any_window_is_one_part() {
    let mut text = vec![b'x'; 3 << 20];
    text.extend_from_slice(b"\nshort\nlast");
    let store = store(&[("in/a", &text)]).await;
    let cut = cut_all(&store, &parts(&["in/a"], 10, Boundary::Line, false)).await;
    let lens: Vec<u64> = cut.iter().map(|t| refs_of(t)[0].len).collect();
    assert_eq!(lens, [(3 << 20) + 1, 10]);
}

fn refs_of(task: &TaskInput) -> &[InputRef] {
    let TaskInput::Files { files, .. } = task else { panic!("{task:?}") };
    files
}

/// What the task's file holds: the header, if it is put in front, and the body.
fn bytes_of<'a>(object: &'a [u8], part: &InputRef) -> (&'a [u8], &'a [u8]) {
    let at = |n: u64| usize::try_from(n).unwrap();
    (&object[..at(part.header)], &object[at(part.offset)..at(part.offset + part.len)])
}

fn records(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    reader.byte_records().map(|r| r.unwrap().iter().map(<[u8]>::to_vec).collect()).collect()
}

fn csv_text() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        "[a-z0-9é ]{0,6}",
        Just("\"\"".to_owned()),
        "[a-z,\n\r]{0,8}".prop_map(|t| format!("\"{t}\"")),
        "[a-z\n]{0,5}".prop_map(|t| format!("\"{t}\"\"{t}\"")),
        Just(format!("\"{}\"", "long\n".repeat(40))),
    ];
    let record = prop::collection::vec(field, 1..5).prop_map(|fields| fields.join(","));
    let ending = prop_oneof![4 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\n\n")];
    (prop::collection::vec((record, ending), 0..60), any::<bool>()).prop_map(|(records, ends)| {
        let mut text: String = records.into_iter().map(|(r, e)| r + e).collect();
        if !ends {
            text.truncate(text.trim_end().len());
        }
        text.into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn csv_parts_put_together_are_the_object_and_each_is_whole(text in csv_text(), target in 1_u64..400, header in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let all = records(&text);
        let (head, body) = if header { all.split_at(all.len().min(1)) } else { all.split_at(0) };
        let cut = runtime.block_on(async {
            let store = store(&[("in/a.csv", &text)]).await;
            match run(&store, &parts(&["in/a.csv"], target, Boundary::Csv, header), Limits::default()).await {
                Ok(result) => Some(tasks(&store, &result).await),
                Err(_) => None,
            }
        });
        let Some(cut) = cut else {
            prop_assert!(body.is_empty(), "refused though there are {} records", body.len());
            return Ok(());
        };
        let (mut bytes, mut seen) = (Vec::new(), Vec::new());
        for task in &cut {
            let [part] = refs_of(task) else { panic!("{task:?}") };
            let (front, own) = bytes_of(&text, part);
            bytes.extend_from_slice(own);
            let file = [front, own].concat();
            let mut in_part = records(&file);
            if header {
                prop_assert_eq!(&in_part[..1], head);
                in_part.remove(0);
            }
            prop_assert!(!in_part.is_empty(), "a part without a record");
            prop_assert_eq!(part.whole, cut.len() == 1);
            seen.extend(in_part);
        }
        prop_assert_eq!(bytes, text);
        prop_assert_eq!(seen.as_slice(), body);
        let in_front = refs_of(&cut[cut.len() - 1])[0].header;
        for task in &cut[..cut.len() - 1] {
            let part = &refs_of(task)[0];
            let body = if part.offset == 0 { part.len - in_front } else { part.len };
            prop_assert!(body >= target, "a part of {} bytes was closed before it had {}", body, target);
        }
    }

    #[test]
    fn line_and_byte_parts_put_together_are_the_object(text in "[a-c\n\r]{0,300}", target in 1_u64..60, header in any::<bool>(), bytes in any::<bool>()) {
        let boundary = if bytes { Boundary::Byte } else { Boundary::Line };
        let header = header && !bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let cut = runtime.block_on(async {
            let store = store(&[("in/a", text.as_bytes())]).await;
            let result = run(&store, &parts(&["in/a"], target, boundary, header), Limits::default()).await.ok()?;
            Some(tasks(&store, &result).await)
        });
        let Some(cut) = cut else {
            prop_assert!(text.is_empty() || header);
            return Ok(());
        };
        let mut all = Vec::new();
        for (n, task) in cut.iter().enumerate() {
            let part = &refs_of(task)[0];
            let (front, own) = bytes_of(text.as_bytes(), part);
            let last = n + 1 == cut.len();
            prop_assert!(!own.is_empty());
            prop_assert!(last || own.len() as u64 >= target);
            if !bytes {
                prop_assert!(last || own.ends_with(b"\n"));
                prop_assert!(front.is_empty() || front.ends_with(b"\n"));
                let body = if header && n == 0 { &own[usize::try_from(refs_of(&cut[cut.len() - 1])[0].header).unwrap().min(own.len())..] } else { own };
                let before_last_line = body.strip_suffix(b"\n").and_then(|b| b.iter().rposition(|c| *c == b'\n')).map_or(0, |at| at + 1);
                prop_assert!((before_last_line as u64) < target || cut.len() == 1, "a part went on after its size was reached");
            }
            all.extend_from_slice(own);
        }
        prop_assert_eq!(all, text.into_bytes());
    }
}

fn page(tasks: &[(u64, bool, &[&str])]) -> Result<OutputPage> {
    let file = |(n, name): (usize, &&str)| StoredFile {
        name: (*name).to_owned(),
        path: "jobs/j/pack".into(),
        offset: n as u64,
        len: 1,
        whole: false,
    };
    let output = |(task, ok, files): &(u64, bool, &[&str])| TaskOutput {
        task: *task,
        attempt: 1,
        ok: *ok,
        files: files.iter().enumerate().map(file).collect(),
        stdout: None,
        stderr: None,
    };
    Ok(OutputPage { range: 1, epoch: 1, seq: 1, tasks: tasks.iter().map(output).collect() })
}

#[tokio::test]
async fn outputs_are_grouped_by_key_in_order_of_key_and_task() {
    let store = store(&[]).await;
    let told = std::sync::atomic::AtomicU64::new(0);
    let mut progress = |p: Progress| told.store(p.tasks, std::sync::atomic::Ordering::Relaxed);
    let mut cx = Cutting { objects: &store, job: JOB, stage: 1, limits: Limits::default(), progress: &mut progress };
    let pages = [
        page(&[(7, true, &["b-1.csv", "x/a-1.csv"]), (8, false, &["a-1.csv"])]),
        page(&[(2, true, &["a-9.csv", "readme"]), (3, true, &["a-9.csv"])]),
    ];
    let result = cut::cut_group("^(?:.*/)?([ab])-", stream::iter(pages), &mut cx).await.unwrap();
    assert_eq!((result.total, told.load(std::sync::atomic::Ordering::Relaxed)), (2, 2));
    let info = result.manifest.unwrap();
    let reader = Reader::default();
    let first = reader.get(&store, JOB, 1, &info, 0).await.unwrap();
    assert_eq!(names(&first), ["a-9.csv", "2-a-9.csv", "a-1.csv"]);
    assert!(matches!(&first, TaskInput::Files { key: Some(k), files } if k == "a" && files[2].offset == 1));
    let second = reader.get(&store, JOB, 1, &info, 1).await.unwrap();
    assert!(matches!(&second, TaskInput::Files { key: Some(k), .. } if k == "b"));

    let none = cut::cut_group("^(q)", stream::iter([page(&[(1, true, &["a.csv"])])]), &mut cx).await.unwrap_err();
    assert_eq!(none.to_string(), "key `^(q)` matches no output of the earlier stage; they are called like `a.csv`");
    cx.limits.objects = 1;
    let many = cut::cut_group("(a)", stream::iter([page(&[(1, true, &["a", "ab"])])]), &mut cx).await.unwrap_err();
    assert_eq!(many.kind(), ErrorKind::Exhausted);
}
