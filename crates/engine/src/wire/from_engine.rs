//! What the engine says.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

use super::bytes::{Reader, cut, length, put_blob, put_name};
use super::frame::{self, Frame};
use super::{FRAME_TASKS, TEXT_BYTES, kind, status};
use crate::session::{Outcome, TaskError, TaskResult};

/// Something an engine has loaded, for the record of what made a result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Library {
    /// As the engine's language calls it.
    pub name: String,
    /// As it says of itself.
    pub version: String,
}

/// HELLO: the answer to START, when the engine has booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that will be spoken.
    pub protocol: u16,
    /// The process that runs tasks.
    pub pid: u32,
    /// What reads and writes the frames: the kit's name ...
    pub kit: String,
    /// ... and version.
    pub kit_version: String,
    /// Language or platform with its version: `python 3.11.7`.
    pub language: String,
    /// What was loaded at boot.
    pub loaded: Vec<Library>,
}

/// OPENED: a session can run tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub session: u32,
    /// Microseconds that opening took.
    pub took_us: u64,
    /// What has been loaded since boot.
    pub loaded: Vec<Library>,
}

/// REFUSED: a session could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its number.
    pub session: u32,
    /// Why.
    pub error: TaskError,
}

/// RESULTS, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultColumns {
    /// The session of all of them.
    pub session: u32,
    /// In the order in which the tasks were given.
    pub outcomes: Vec<Outcome>,
}

/// Everything that an engine may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromEngine {
    /// The answer to START.
    Hello(Hello),
    /// The session is open.
    Opened(Opened),
    /// It could not be opened.
    Refused(Refusal),
    /// Results of tasks.
    Results(ResultColumns),
    /// The answer to PING.
    Pong(u64),
}

/// Adds a RESULTS frame. At most [`FRAME_TASKS`] outcomes.
pub fn results(out: &mut BytesMut, session: u32, outcomes: &[Outcome]) {
    let mut payloads = BytesMut::new();
    let lengths: Vec<usize> = outcomes
        .iter()
        .map(|o| {
            let before = payloads.len();
            match &o.result {
                TaskResult::Value(value) => payloads.put_slice(value),
                TaskResult::Failed(e) => put_error(&mut payloads, e),
                TaskResult::Cancelled => {}
            }
            payloads.len() - before
        })
        .collect();
    frame::write(out, kind::RESULTS, |out| {
        out.put_u32_le(session);
        out.put_u32_le(length(outcomes.len()));
        outcomes.iter().for_each(|o| out.put_u64_le(o.task));
        outcomes.iter().for_each(|o| out.put_u64_le(o.run_us));
        lengths.iter().for_each(|len| out.put_u32_le(length(*len)));
        outcomes.iter().for_each(|o| {
            out.put_u8(match o.result {
                TaskResult::Value(_) => status::OK,
                TaskResult::Failed(_) => status::ERROR,
                TaskResult::Cancelled => status::CANCELLED,
            });
        });
        out.put_slice(&payloads);
    });
}

fn put_error(out: &mut BytesMut, e: &TaskError) {
    put_name(out, &e.class);
    put_blob(out, cut(&e.message, TEXT_BYTES).as_bytes());
    put_blob(out, cut(&e.traceback, TEXT_BYTES).as_bytes());
    put_blob(out, &e.value);
}

fn error(r: &mut Reader) -> Result<TaskError> {
    Ok(TaskError {
        class: r.name("error class")?,
        message: r.text(TEXT_BYTES, "error message")?,
        traceback: r.text(TEXT_BYTES, "traceback")?,
        value: r.blob("error value")?.to_vec().into(),
        log: String::new(),
    })
}

fn put_libraries(out: &mut BytesMut, loaded: &[Library]) {
    out.put_u32_le(length(loaded.len()));
    for library in loaded {
        put_name(out, &library.name);
        put_name(out, &library.version);
    }
}

fn libraries(r: &mut Reader) -> Result<Vec<Library>> {
    r.list("libraries", |r| Ok(Library { name: r.name("library")?, version: r.name("library's version")? }))
}

impl FromEngine {
    /// Reads a frame.
    pub fn decode(frame: Frame) -> Result<Self> {
        match frame.kind {
            kind::HELLO => hello(frame.body).map(Self::Hello),
            kind::OPENED => {
                let mut r = Reader::new("OPENED", frame.body);
                let opened = Opened { session: r.u32("session")?, took_us: r.u64("time")?, loaded: libraries(&mut r)? };
                r.end()?;
                Ok(Self::Opened(opened))
            }
            kind::REFUSED => {
                let mut r = Reader::new("REFUSED", frame.body);
                let refusal = Refusal { session: r.u32("session")?, error: error(&mut r)? };
                r.end()?;
                Ok(Self::Refused(refusal))
            }
            kind::RESULTS => outcomes(frame.body).map(Self::Results),
            kind::PONG => {
                let mut r = Reader::new("PONG", frame.body);
                let number = r.u64("number")?;
                r.end()?;
                Ok(Self::Pong(number))
            }
            other => Err(Error::invalid(format!("an engine sends no frame of kind {other:#04x}; something else writes to its stdout"))),
        }
    }

    /// Adds the frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => frame::write(out, kind::HELLO, |out| {
                out.put_u16_le(hello.protocol);
                out.put_u32_le(hello.pid);
                put_name(out, &hello.kit);
                put_name(out, &hello.kit_version);
                put_name(out, &hello.language);
                put_libraries(out, &hello.loaded);
            }),
            Self::Opened(opened) => frame::write(out, kind::OPENED, |out| {
                out.put_u32_le(opened.session);
                out.put_u64_le(opened.took_us);
                put_libraries(out, &opened.loaded);
            }),
            Self::Refused(refusal) => frame::write(out, kind::REFUSED, |out| {
                out.put_u32_le(refusal.session);
                put_error(out, &refusal.error);
            }),
            Self::Results(columns) => results(out, columns.session, &columns.outcomes),
            Self::Pong(number) => frame::write(out, kind::PONG, |out| out.put_u64_le(*number)),
        }
    }
}

fn hello(body: Bytes) -> Result<Hello> {
    let mut r = Reader::new("HELLO", body);
    let hello = Hello {
        protocol: r.u16("protocol")?,
        pid: r.u32("pid")?,
        kit: r.name("kit")?,
        kit_version: r.name("kit's version")?,
        language: r.name("language")?,
        loaded: libraries(&mut r)?,
    };
    r.end()?;
    Ok(hello)
}

fn outcomes(body: Bytes) -> Result<ResultColumns> {
    let mut r = Reader::new("RESULTS", body);
    let session = r.u32("session")?;
    let count = r.count(FRAME_TASKS, "results")?;
    let tasks = r.column(count, "task numbers", u64::from_le_bytes)?;
    let times = r.column(count, "run times", u64::from_le_bytes)?;
    let lengths = r.column(count, "lengths", u32::from_le_bytes)?;
    let statuses = r.take(count, "statuses")?;
    let mut outcomes = Vec::with_capacity(count);
    for (((task, run_us), len), status) in tasks.into_iter().zip(times).zip(lengths).zip(&statuses) {
        let payload = r.take(len as usize, "payload")?;
        let result = match *status {
            status::OK => TaskResult::Value(payload),
            status::ERROR => {
                let mut r = Reader::new("RESULTS", payload);
                let e = error(&mut r)?;
                r.end()?;
                TaskResult::Failed(Box::new(e))
            }
            status::CANCELLED if payload.is_empty() => TaskResult::Cancelled,
            other => return Err(r.wrong(format_args!("task {task} has status {other} with {len} bytes"))),
        };
        outcomes.push(Outcome { task, run_us, result });
    }
    r.end()?;
    Ok(ResultColumns { session, outcomes })
}
