//! Values in postcard: what manager and workers say to each other, through the blocks and over the wire.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_base::{RunSet, Timestamp};
use tidemill_batch::model::{FailureClass, TaskColumns, TaskFailure, TaskStat};
use tidemill_batch::protocol::{
    Claim, Control, Done, Heartbeat, OutputPage, RangeState, Report, RunningTask, StoredFile, TaskOutput, WorkItem, WorkerPhase, claim,
    decode, encode,
};
use tidemill_blocks::fleet::Offers;
use tidemill_blocks::queue::{Delivery, MessageId, NewMessage, QueueSettings, Receipt};
use tidemill_blocks::table::{Condition, Key, Write};
use tidemill_fuzz::{Settings, fuzz, shape};
use tidemill_remote::wire::{self, Call, objects, queue, table};

use crate::{refused, text};

/// A value that decodes comes back the same when it is written and read again, and what it is written as is read as itself.
fn stable<T: Serialize + DeserializeOwned + Debug>(value: &T) -> u64 {
    let bytes = postcard::to_stdvec(value).unwrap();
    let again: T = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(postcard::to_stdvec(&again).unwrap(), bytes);
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
    shape("i".repeat(bytes.len().min(64)))
}

/// A first byte that chooses the type, then the value.
fn example<T: Serialize>(kind: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![kind]).unwrap()
}

fn file(name: &str) -> StoredFile {
    StoredFile { name: name.into(), path: format!("jobs/j1/out/0/1-1/{name}"), offset: 0, len: 4096, whole: true }
}

fn protocol_examples() -> Vec<Vec<u8>> {
    let now = Timestamp(1_769_860_800_000_000);
    let settled: RunSet = (0..40).chain(60..75).collect();
    let failure = TaskFailure { task: 9, class: FailureClass::Exit, exit: Some(3), signal: None, message: "exit code 3".into() };
    let output = TaskOutput { task: 5, attempt: 1, ok: true, files: vec![file("a.csv")], stdout: Some(file("stdout")), stderr: None };
    let task = RunningTask { job: "j1".into(), stage: 0, task: 8, attempt: 1, started_at: now, memory: 1 << 30 };
    let item = WorkItem {
        job: "j1".into(),
        stage: 0,
        range: 3,
        start: 100,
        len: 50,
        attempt: 1,
        released_at: now,
        pieces: Vec::new(),
        needs: Vec::new(),
    };
    let state = RangeState { epoch: 2, worker: "w1".into(), lease_until: now, seq: 4, settled, finished: false };
    let report = Report {
        worker: "w1".into(),
        epoch: 2,
        attempt: 1,
        succeeded: vec![(100, 20)],
        failed: vec![failure],
        returned: vec![(130, 20)],
        cancelled: Vec::new(),
        finished: true,
        columns: columns_example(20).pack().unwrap(),
        at: now,
    };
    let beat = Heartbeat {
        worker: "w1".into(),
        class: "local".into(),
        host: "mill".into(),
        version: "0.1.0".into(),
        offers: Offers { slots: 4, memory: 8 << 30, named: [("gpu".to_owned(), 1)].into() },
        started_at: now,
        at: now,
        phase: WorkerPhase::Ready,
        running: vec![task],
        ranges: 2,
        waiting: 0,
        idle: 0,
        tasks_done: 100,
        busy_us: 5,
        cpu_us: 6,
        tools: vec!["podman".into()],
    };
    vec![
        example(0, &item),
        example(1, &report),
        example(2, &Done { job: "j1".into(), stage: 0, range: 3, seq: 4 }),
        example(3, &state),
        example(4, &OutputPage { range: 3, epoch: 2, seq: 4, tasks: vec![output] }),
        example(5, &beat),
        example(6, &Control::Pause),
    ]
}

#[test]
fn protocol() {
    let examples = protocol_examples();
    for example in &examples {
        assert_ne!(protocol_value(example), shape("no value"), "an example does not decode: {example:?}");
    }
    let settings = Settings { runs: 40_000, examples, tokens: &["j1", "w1", "stdout"], memory: 80 << 20, ..Settings::default() };
    fuzz("protocol", settings, protocol_value);
}

fn protocol_value(input: &[u8]) -> u64 {
    fn one<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<u64> {
        let value: T = decode("a value", bytes).ok()?;
        assert_eq!(encode(&value).unwrap(), postcard::to_stdvec(&value).unwrap());
        Some(stable(&value))
    }
    let Some((kind, bytes)) = input.split_first() else { return shape("empty") };
    let found = match kind % 7 {
        0 => one::<WorkItem>(bytes),
        1 => one::<Report>(bytes).inspect(|_| {
            let report: Report = decode("a report", bytes).unwrap();
            let _ = TaskColumns::unpack(&report.columns);
        }),
        2 => one::<Done>(bytes),
        3 => one::<RangeState>(bytes).inspect(|_| claims(&decode("a fence", bytes).unwrap())),
        4 => one::<OutputPage>(bytes),
        5 => one::<Heartbeat>(bytes),
        _ => one::<Control>(bytes),
    };
    found.unwrap_or_else(|| shape("no value"))
}

/// A claim never gives away what another worker holds, and never starts a finished range again.
fn claims(state: &RangeState) {
    let now = Timestamp(1_769_860_800_000_000);
    match claim(Some(state), "me", now, Duration::from_secs(30)) {
        Claim::Take(taken) => {
            assert!(!state.finished && (state.lease_until <= now || state.worker == "me"));
            assert!(taken.epoch > state.epoch && taken.seq == state.seq && taken.settled == state.settled);
        }
        Claim::AlreadyFinished => assert!(state.finished),
        Claim::HeldByOther(rest) => assert!(state.worker != "me" && !rest.is_zero()),
    }
}

fn columns_example(rows: u64) -> TaskColumns {
    let mut columns = TaskColumns::default();
    for task in 0..rows {
        let started_us = 1_700_000_000_000_000 + task.cast_signed();
        columns.push(TaskStat { task, attempt: 1, started_us, run_us: 300 + task, bytes_out: 5, ..TaskStat::default() });
    }
    columns
}

/// The first byte says whether the rest is packed already.
#[test]
fn columns() {
    let packed = columns_example(50).pack().unwrap();
    let plain = postcard::to_stdvec(&columns_example(5)).unwrap();
    let examples = vec![[b"z", packed.as_slice()].concat(), [b"p", plain.as_slice()].concat()];
    // Packed columns may unfold to 64 MiB, and postcard's one byte for a small number becomes eight.
    let settings = Settings { runs: 20_000, examples, memory: 192 << 20, ..Settings::default() };
    fuzz("columns", settings, |input| {
        let [form, body @ ..] = input else { return shape("short") };
        let stored = if form % 2 == 0 { body.to_vec() } else { zstd::bulk::compress(body, 1).unwrap() };
        match TaskColumns::unpack(&stored) {
            Ok(columns) => {
                assert_eq!(columns.rows().count(), columns.len());
                assert_eq!(columns.bytes_out.len(), columns.task.len());
                assert_eq!(TaskColumns::unpack(&columns.pack().unwrap()).unwrap(), columns);
                shape("i".repeat(columns.len().min(8)))
            }
            Err(e) => refused(&e),
        }
    });
}

/// Runs as they come off the wire, then what is done with them, against a plain set.
#[test]
fn runset() {
    let runs: Vec<(u64, u64)> = vec![(0, 3), (10, 1), (5, 20), (u64::MAX - 1, 9)];
    let settings = Settings { runs: 30_000, examples: vec![postcard::to_stdvec(&runs).unwrap()], ..Settings::default() };
    fuzz("runset", settings, |input| {
        let Ok(runs) = postcard::from_bytes::<Vec<(u64, u64)>>(input) else { return shape("no runs") };
        let mut set: RunSet = postcard::from_bytes(input).unwrap();
        check_runs(&set);
        assert_eq!(postcard::from_bytes::<RunSet>(&postcard::to_stdvec(&set).unwrap()).unwrap(), set);
        // A plain set has to hold every number, so it is asked about small ones only.
        let small: Vec<_> = runs.iter().map(|(start, len)| (start % 200, len % 20)).collect();
        let (mut ours, mut plain) = (RunSet::new(), BTreeSet::new());
        for (number, (start, len)) in small.iter().enumerate() {
            if number % 3 == 2 {
                plain.retain(|n| !(*start..start + len).contains(n));
                ours.remove_run(*start, *len);
            } else {
                plain.extend(*start..start + len);
                ours.insert_run(*start, *len);
            }
        }
        assert!(ours.iter().eq(plain.iter().copied()));
        for (start, len) in &runs {
            let before = set.len();
            assert_eq!(set.remove_run(*start, *len), before - set.len());
            check_runs(&set);
        }
        assert!(set.is_empty(), "taking every run out leaves {set:?}");
        shape("i".repeat(small.len().min(6)))
    });
}

fn check_runs(set: &RunSet) {
    let runs: Vec<_> = set.runs().collect();
    assert!(runs.iter().all(|(start, len)| *len > 0 && start.checked_add(*len).is_some()), "{runs:?}");
    assert!(runs.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "runs touch: {runs:?}");
    assert_eq!(runs.iter().map(|(_, len)| len).sum::<u64>(), set.len());
    assert!(runs.iter().all(|(start, len)| set.contains(*start) && set.contains(start + len - 1)));
}

fn wire_examples() -> Vec<Vec<u8>> {
    let second = Duration::from_secs(1);
    let receive = tidemill_blocks::queue::Receive::up_to(10, second).waiting(second);
    let settings =
        QueueSettings { max_receives: Some(5), dead_letter: Some("batch.dead".into()), retention: second * 86_400, recoverable: true };
    let write = Write::put(Key::new("r/j1/0", b"12345678".to_vec()), b"value".to_vec(), Condition::Absent);
    let put =
        objects::Put { path: "jobs/a".into(), mode: objects::Mode::Create, attributes: vec![("Content-Type".into(), "text/csv".into())] };
    let delivery =
        Delivery { id: MessageId("1".into()), receipt: Receipt("2".into()), body: vec![1, 2].into(), receives: 1, sent_at: Timestamp(5) };
    vec![
        example(0, &queue::Ensure { queue: "batch.work.local".into(), settings }),
        example(1, &queue::Send { queue: "q".into(), messages: vec![NewMessage::after(vec![7; 20], second)] }),
        example(2, &queue::Receive { queue: "q".into(), how: receive }),
        example(3, &queue::Extend { queue: "q".into(), receipts: vec![Receipt("1-2".into())], lease: second }),
        example(4, &table::Transact { table: "batch-state".into(), writes: vec![write] }),
        example(5, &table::Range { table: "t".into(), range: tidemill_blocks::table::Range::all("p", 10) }),
        example(6, &objects::Get { path: "jobs/a".into(), options: objects::Options::default() }),
        example(7, &objects::Delete { paths: vec!["a".into(), "b".into()] }),
        example(8, &put),
        example(9, &vec![delivery]),
        example(10, &objects::Frame::Failed(objects::Failure { status: 404, message: "gone".into() })),
        example(
            11,
            &wire::Welcome {
                version: "0.1.0".into(),
                queue: wire::QueueCapabilities { strict_leases: true, exact_stats: true, exact_browse: true },
            },
        ),
    ]
}

#[test]
fn wire_values() {
    let examples = wire_examples();
    for example in &examples {
        assert_ne!(wire_value(example), shape("no value"), "an example does not decode: {example:?}");
    }
    fuzz("wire_values", Settings { runs: 40_000, examples, tokens: &["jobs/", "../", "batch."], ..Settings::default() }, wire_value);
}

fn wire_value(input: &[u8]) -> u64 {
    fn one<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<u64> {
        let value: T = wire::decode(bytes).ok()?;
        let header = wire::encode_header(&value).unwrap();
        assert_eq!(format!("{:?}", wire::decode_header::<T>(&header).unwrap()), format!("{value:?}"));
        Some(stable(&value))
    }
    let Some((kind, bytes)) = input.split_first() else { return shape("empty") };
    let found = match kind % 12 {
        0 => one::<queue::Ensure>(bytes),
        1 => one::<queue::Send>(bytes),
        2 => one::<queue::Receive>(bytes).inspect(|_| {
            let _ = wire::decode::<queue::Receive>(bytes).unwrap().wait();
        }),
        3 => one::<queue::Extend>(bytes),
        4 => one::<table::Transact>(bytes),
        5 => one::<table::Range>(bytes),
        6 => one::<objects::Get>(bytes).inspect(|_| {
            let call: objects::Get = wire::decode(bytes).unwrap();
            if let Ok(options) = call.options.clone().into_options() {
                assert_eq!(objects::Options::of(&options), call.options);
            }
        }),
        7 => one::<objects::Delete>(bytes),
        8 => one::<objects::Put>(bytes),
        9 => one::<Vec<Delivery>>(bytes),
        10 => one::<objects::Frame>(bytes),
        _ => one::<wire::Welcome>(bytes),
    };
    found.unwrap_or_else(|| shape("no value"))
}

/// A listing comes out the same however it is cut on its way.
#[test]
fn wire_frames() {
    let frame = |frame: &objects::Frame| {
        let body = postcard::to_stdvec(frame).unwrap();
        [u32::try_from(body.len()).unwrap().to_be_bytes().as_slice(), &body].concat()
    };
    let failed = objects::Frame::Failed(objects::Failure { status: 412, message: "no".into() });
    let listing = [frame(&objects::Frame::Some(Vec::new())), frame(&failed), frame(&objects::Frame::End)].concat();
    fuzz("wire_frames", Settings { runs: 30_000, examples: vec![listing], ..Settings::default() }, |input| {
        let show = |frames: tidemill_base::Result<Vec<objects::Frame>>| frames.map(|f| format!("{f:?}")).map_err(|e| e.to_string());
        let whole = show(tidemill_remote::fuzz::frames([input]));
        let halves = input.split_at(input.len() / 2);
        assert_eq!(show(tidemill_remote::fuzz::frames([halves.0, halves.1])), whole);
        assert_eq!(show(tidemill_remote::fuzz::frames(input.chunks(1))), whole);
        shape(whole.map_or_else(|e| e, |frames| format!("{} frames", "i".repeat(frames.matches('(').count().min(5)))))
    });
}

/// What a manager, or a proxy in front of it, answers instead of a success.
#[test]
fn wire_errors() {
    let tokens = &["\"kind\"", "\"message\"", "\"hint\"", "\"request_id\"", "corrupt", "not_found", "{", "<html>", "\\u0000"];
    fuzz("wire_errors", Settings { tokens, ..Settings::default() }, |input| {
        let (status, body) = input.split_at(input.len().min(1));
        let status = 300 + u16::from(status.first().copied().unwrap_or(200));
        let e = wire::error_of(status, body);
        assert!(!e.to_string().is_empty());
        // A header's text, and an error of the store by status.
        let _ = wire::decode_header::<objects::Got>(&text(body));
        let told_apart = [304, 401, 403, 404, 409, 412, 501];
        let store = objects::error_from(status, "p", "why".into());
        assert_eq!(objects::status_of(&store), if told_apart.contains(&status) { status } else { 502 });
        shape(format_args!("{:?}", e.kind()))
    });
}

/// Events come out the same however the stream is cut on its way.
#[test]
fn server_sent_events() {
    let tokens = &["data:", "data: ", "\n\n", "\r\n", "event: job\n", ": ping\n\n", "id: 1\n"];
    fuzz("server_sent_events", Settings { tokens, ..Settings::default() }, |input| {
        let events = tidemill_client::fuzz::server_sent_events([input]).unwrap();
        let halves = input.split_at(input.len() / 3);
        assert_eq!(tidemill_client::fuzz::server_sent_events([halves.0, halves.1]).unwrap(), events);
        assert_eq!(tidemill_client::fuzz::server_sent_events(input.chunks(1)).unwrap(), events);
        let sent: usize = events.iter().map(Vec::len).sum();
        assert!(sent <= input.len());
        // Written anew, each event is read as itself.
        for event in &events {
            let lines = event.split(|b| *b == b'\n').map(|line| [b"data: ", line, b"\n"].concat()).collect::<Vec<_>>().concat();
            let again = tidemill_client::fuzz::server_sent_events([lines.as_slice(), b"\n"]).unwrap();
            // A carriage return at a line's end is taken for the ending's.
            assert!(again == [event.clone()] || event.contains(&b'\r'), "{again:?}");
        }
        shape("i".repeat(events.len().min(4)))
    });
}

/// Frames of results come out the same however the stream is cut on its way, and never with more in them than was sent.
#[test]
fn result_frames() {
    let tokens = &["\0\0\0", "\x0d\0\0\0\x01", "\x08\0\0\0\x03", "\x01\0\0\0\0\0\0\0", "succeeded", "\u{1}\0\0\0"];
    fuzz("result_frames", Settings { tokens, ..Settings::default() }, |input| {
        let read = tidemill_client::fuzz::result_frames([input]);
        let halves = input.split_at(input.len() / 3);
        let again = tidemill_client::fuzz::result_frames([halves.0, halves.1]);
        let by_bytes = tidemill_client::fuzz::result_frames(input.chunks(1));
        let Ok(frames) = read else {
            assert!(again.is_err() && by_bytes.is_err());
            return shape("refused".to_owned());
        };
        assert_eq!(again.unwrap(), frames);
        assert_eq!(by_bytes.unwrap(), frames);
        // Each frame has at least length, kind and number, each outcome its row.
        let bytes = |(_, outcomes, state): &(u64, Vec<tidemill_client::TaskOutcome>, String)| {
            13 + outcomes.iter().map(|o| 17 + o.bytes.len()).sum::<usize>() + state.len()
        };
        assert!(frames.iter().map(bytes).sum::<usize>() <= input.len());
        shape("f".repeat(frames.len().min(4)))
    });
}
