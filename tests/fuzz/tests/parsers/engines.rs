//! What engines and their hosts say to each other: an engine is a user's program and may say anything.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidemill_engine::wire::{Frame, Frames, FromEngine, FromHost, Hello, Library, Open, Opened, Refusal, ResultColumns, RunColumns, Start};
use tidemill_engine::{Function, Outcome, Package, Session, SetUp, Task, TaskError, TaskResult};
use tidemill_fuzz::{Settings, fuzz, shape};

use crate::refused;

const LONGEST: u32 = 1 << 16;

fn from_engine() -> Vec<FromEngine> {
    let library = Library { name: "QuantLib".into(), version: "1.44".into() };
    let hello = Hello {
        protocol: 1,
        pid: 4711,
        kit: "tidemill-python".into(),
        kit_version: "0.1.0".into(),
        language: "python 3.11.7".into(),
        loaded: vec![library.clone()],
    };
    let e = TaskError {
        class: "ValueError".into(),
        message: "no".into(),
        traceback: "line 1".into(),
        value: [0x80].into(),
        log: String::new(),
    };
    let outcome = |task, result| Outcome { task, run_us: 7, result };
    let outcomes = vec![
        outcome(1, TaskResult::Value(Bytes::from_static(b"v"))),
        outcome(2, TaskResult::Failed(Box::new(e.clone()))),
        outcome(3, TaskResult::Cancelled),
    ];
    vec![
        FromEngine::Hello(hello),
        FromEngine::Opened(Opened { session: 1, took_us: 5, loaded: vec![library] }),
        FromEngine::Refused(Refusal { session: 1, error: e }),
        FromEngine::Results(ResultColumns { session: 1, outcomes }),
        FromEngine::Pong(9),
    ]
}

fn from_host() -> Vec<FromHost> {
    let start = Start {
        oldest: 1,
        newest: 1,
        frame_bytes: LONGEST,
        flush_bytes: 4096,
        flush_us: 1000,
        engine: "e1".into(),
        scratch: "/tmp".into(),
        packages: vec![Package { name: "calendars".into(), version: "2".into(), path: "/data".into() }],
    };
    let mut session = Session::new(Function::Module("pricing:value".into()));
    session.set_up = SetUp { function: Some(Function::Pickled(Bytes::from_static(b"\x80\x05"))), data: Some(Bytes::from_static(b"d")) };
    session.parameters.insert("desk".into(), "rates".into());
    let with = Task { id: 5, payload: Bytes::from_static(b"p"), dependencies: [Bytes::from_static(b"r"), Bytes::new()].into() };
    vec![
        FromHost::Start(start),
        FromHost::Open(Open { number: 1, session: Arc::new(session) }),
        FromHost::Close(1),
        FromHost::Run(RunColumns { session: 1, step: true, tasks: vec![Task::new(4, "x"), with] }),
        FromHost::Run(RunColumns { session: 1, step: false, tasks: vec![Task::new(6, "y")] }),
        FromHost::Cancel(1, vec![4, 5]),
        FromHost::Ping(9),
    ]
}

fn examples() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for one in from_engine() {
        let mut out = BytesMut::new();
        one.encode(&mut out);
        all.push(out.to_vec());
    }
    for one in from_host() {
        let mut out = BytesMut::new();
        one.encode(&mut out);
        all.push(out.to_vec());
    }
    all.push(all.concat());
    all
}

/// The frames of a stream that comes in these pieces, and why it ends, if it does.
fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<String>) {
    let (mut frames, mut found) = (Frames::new(LONGEST), Vec::new());
    for piece in pieces {
        frames.buffer().extend_from_slice(piece);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(e) => return (found, Some(e.to_string())),
            }
        }
    }
    (found, None)
}

/// A message that can be read is the same when it is written and read again.
fn message(frame: &Frame) -> u64 {
    let again = |out: &mut BytesMut| frames([&out[..]]).0.remove(0);
    let mut out = BytesMut::new();
    if frame.kind < 0x80 {
        return match FromHost::decode(frame.clone()) {
            Ok(said) => {
                said.encode(&mut out);
                assert_eq!(FromHost::decode(again(&mut out)).unwrap(), said);
                shape(frame.kind)
            }
            Err(e) => refused(&e),
        };
    }
    match FromEngine::decode(frame.clone()) {
        Ok(said) => {
            said.encode(&mut out);
            assert_eq!(FromEngine::decode(again(&mut out)).unwrap(), said);
            shape(frame.kind)
        }
        Err(e) => refused(&e),
    }
}

#[test]
fn engine_frames() {
    let examples = examples();
    let readable = frames(examples.iter().map(Vec::as_slice)).0;
    assert_eq!(readable.len(), 24, "an example cannot be read");
    for frame in &readable {
        assert_eq!(message(frame), shape(frame.kind), "an example is refused: {frame:?}");
    }
    fuzz("engine_frames", Settings { runs: 20_000, examples, tokens: &["TMEP"], ..Settings::default() }, |input| {
        let whole = frames([input]);
        let halves = input.split_at(input.len() / 2);
        assert_eq!(frames([halves.0, halves.1]), whole);
        assert_eq!(frames(input.chunks(1)), whole);
        let shapes: Vec<u64> = whole.0.iter().map(message).collect();
        shape(format_args!("{shapes:?} {:?}", whole.1.is_some()))
    });
}
