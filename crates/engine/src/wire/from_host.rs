//! What the host says.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tidemill_base::Result;

use super::bytes::{Reader, length, put_blob, put_name};
use super::frame::{self, Frame};
use super::{FRAME_TASKS, kind};
use crate::session::{Format, Function, Session, SetUp, Task};
use crate::spec::Package;

/// START: the first frame. The engine boots when it has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The oldest protocol that the host speaks.
    pub oldest: u16,
    /// The newest protocol that the host speaks. The engine chooses.
    pub newest: u16,
    /// No frame's body may be longer, bytes, in both directions.
    pub frame_bytes: u32,
    /// Results are sent when so many bytes wait ...
    pub flush_bytes: u32,
    /// ... or when so many microseconds have passed since results were last sent.
    pub flush_us: u32,
    /// What the host calls the engine.
    pub engine: String,
    /// A folder of its own, its working folder; gone when it has ended.
    pub scratch: String,
    /// Folders of static data, read-only.
    pub packages: Vec<Package>,
}

/// OPEN: a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its number.
    pub number: u32,
    /// All but the limit of time travels.
    pub session: Arc<Session>,
}

/// RUN, decoded: the session, the flags, the tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunColumns {
    /// The session.
    pub session: u32,
    /// Send each result before the next task is started, so that what a crash destroys is known exactly.
    pub step: bool,
    /// In the order in which to run them.
    pub tasks: Vec<Task>,
}

/// Everything that a host may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromHost {
    /// The first frame.
    Start(Start),
    /// Open a session.
    Open(Open),
    /// Close a session: forget its state.
    Close(u32),
    /// Run tasks.
    Run(RunColumns),
    /// Do not start these tasks of this session.
    Cancel(u32, Vec<u64>),
    /// Answer with a PONG of the same number.
    Ping(u64),
}

/// Encoders: each adds a frame to `out`.
pub mod order {
    use super::{BufMut, BytesMut, Function, Open, Start, Task, frame, kind, length, put_blob, put_name};

    /// Adds a START frame.
    pub fn start(out: &mut BytesMut, start: &Start) {
        frame::write(out, kind::START, |out| {
            out.put_slice(super::MAGIC);
            out.put_u16_le(start.oldest);
            out.put_u16_le(start.newest);
            out.put_u32_le(start.frame_bytes);
            out.put_u32_le(start.flush_bytes);
            out.put_u32_le(start.flush_us);
            put_name(out, &start.engine);
            put_name(out, &start.scratch);
            out.put_u32_le(length(start.packages.len()));
            for package in &start.packages {
                put_name(out, &package.name);
                put_name(out, &package.version);
                put_name(out, &package.path.to_string_lossy());
            }
        });
    }

    /// Adds an OPEN frame.
    pub fn open(out: &mut BytesMut, open: &Open) {
        frame::write(out, kind::OPEN, |out| {
            out.put_u32_le(open.number);
            out.put_u8(open.session.input.number());
            out.put_u8(open.session.output.number());
            function(out, Some(&open.session.function));
            function(out, open.session.set_up.function.as_ref());
            let data = &open.session.set_up.data;
            out.put_u8(u8::from(data.is_some()));
            put_blob(out, data.as_deref().unwrap_or_default());
            out.put_u32_le(length(open.session.parameters.len()));
            for (name, value) in &open.session.parameters {
                put_name(out, name);
                put_blob(out, value.as_bytes());
            }
        });
    }

    fn function(out: &mut BytesMut, function: Option<&Function>) {
        out.put_u8(function.map_or(0, Function::number));
        put_blob(out, function.map(Function::bytes).unwrap_or_default());
    }

    /// Adds a CLOSE frame.
    pub fn close(out: &mut BytesMut, session: u32) {
        frame::write(out, kind::CLOSE, |out| out.put_u32_le(session));
    }

    /// Adds a RUN frame. At most [`FRAME_TASKS`](super::FRAME_TASKS) tasks.
    pub fn run(out: &mut BytesMut, session: u32, step: bool, tasks: &[Task]) {
        let needed: usize = tasks.iter().map(|t| 16 + t.payload.len() + t.dependencies.iter().map(|d| 4 + d.len()).sum::<usize>()).sum();
        out.reserve(needed + 32);
        frame::write(out, kind::RUN, |out| {
            let dependencies: usize = tasks.iter().map(|t| t.dependencies.len()).sum();
            out.put_u32_le(session);
            out.put_u32_le(u32::from(step));
            out.put_u32_le(length(tasks.len()));
            out.put_u32_le(length(dependencies));
            tasks.iter().for_each(|t| out.put_u64_le(t.id));
            tasks.iter().for_each(|t| out.put_u32_le(length(t.payload.len())));
            if dependencies > 0 {
                tasks.iter().for_each(|t| out.put_u32_le(length(t.dependencies.len())));
                tasks.iter().flat_map(|t| &t.dependencies).for_each(|d| out.put_u32_le(length(d.len())));
            }
            tasks.iter().for_each(|t| out.put_slice(&t.payload));
            tasks.iter().flat_map(|t| &t.dependencies).for_each(|d| out.put_slice(d));
        });
    }

    /// Adds a CANCEL frame.
    pub fn cancel(out: &mut BytesMut, session: u32, tasks: &[u64]) {
        frame::write(out, kind::CANCEL, |out| {
            out.put_u32_le(session);
            out.put_u32_le(length(tasks.len()));
            tasks.iter().for_each(|t| out.put_u64_le(*t));
        });
    }

    /// Adds a PING frame.
    pub fn ping(out: &mut BytesMut, number: u64) {
        frame::write(out, kind::PING, |out| out.put_u64_le(number));
    }
}

/// The first bytes of START's body, so that a program that is no engine is not taken for one.
const MAGIC: &[u8; 4] = b"TMEP";

impl FromHost {
    /// Reads a frame.
    pub fn decode(frame: Frame) -> Result<Self> {
        Ok(match frame.kind {
            kind::START => Self::Start(start(frame.body)?),
            kind::OPEN => Self::Open(open(frame.body)?),
            kind::CLOSE => {
                let mut r = Reader::new("CLOSE", frame.body);
                let session = r.u32("session")?;
                r.end()?;
                Self::Close(session)
            }
            kind::RUN => Self::Run(run(frame.body)?),
            kind::CANCEL => {
                let mut r = Reader::new("CANCEL", frame.body);
                let session = r.u32("session")?;
                let count = r.count(FRAME_TASKS, "tasks")?;
                let tasks = r.column(count, "task numbers", u64::from_le_bytes)?;
                r.end()?;
                Self::Cancel(session, tasks)
            }
            kind::PING => {
                let mut r = Reader::new("PING", frame.body);
                let number = r.u64("number")?;
                r.end()?;
                Self::Ping(number)
            }
            other => return Err(tidemill_base::Error::invalid(format!("a host sends no frame of kind {other:#04x}"))),
        })
    }

    /// Adds the frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Start(start) => order::start(out, start),
            Self::Open(open) => order::open(out, open),
            Self::Close(session) => order::close(out, *session),
            Self::Run(run) => order::run(out, run.session, run.step, &run.tasks),
            Self::Cancel(session, tasks) => order::cancel(out, *session, tasks),
            Self::Ping(number) => order::ping(out, *number),
        }
    }
}

fn start(body: Bytes) -> Result<Start> {
    let mut r = Reader::new("START", body);
    if r.take(MAGIC.len(), "magic")? != MAGIC.as_slice() {
        return Err(r.wrong("does not begin with TMEP; is this a tidemill host?"));
    }
    let start = Start {
        oldest: r.u16("oldest protocol")?,
        newest: r.u16("newest protocol")?,
        frame_bytes: r.u32("frame bytes")?,
        flush_bytes: r.u32("flush bytes")?,
        flush_us: r.u32("flush time")?,
        engine: r.name("engine")?,
        scratch: r.name("scratch folder")?,
        packages: r.list("packages", |r| {
            Ok(Package { name: r.name("package name")?, version: r.name("package version")?, path: r.name("package path")?.into() })
        })?,
    };
    // A later version may add to this frame, the one whose version is not agreed on yet.
    drop(r.rest());
    Ok(start)
}

fn open(body: Bytes) -> Result<Open> {
    let mut r = Reader::new("OPEN", body);
    let number = r.u32("session")?;
    let (input, output) = (format(&mut r)?, format(&mut r)?);
    let Some(called) = function(&mut r)? else { return Err(r.wrong("it names no function")) };
    let set_up = function(&mut r)?;
    let has_data = r.u8("whether there is data")?;
    let data = r.blob("data")?;
    let data = match (has_data, data.is_empty()) {
        (0, true) => None,
        (1, _) => Some(data),
        _ => return Err(r.wrong("set-up data that is and is not there")),
    };
    let mut parameters = BTreeMap::new();
    for (name, value) in r.list("parameters", |r| Ok((r.name("parameter")?, r.text(super::TEXT_BYTES, "value")?)))? {
        if parameters.insert(name, value).is_some() {
            return Err(r.wrong("a parameter is given twice"));
        }
    }
    r.end()?;
    let session = Session { function: called, input, output, set_up: SetUp { function: set_up, data }, parameters, limit: None };
    Ok(Open { number, session: Arc::new(session) })
}

fn format(r: &mut Reader) -> Result<Format> {
    let number = r.u8("format")?;
    Format::from_number(number).ok_or_else(|| r.wrong(format_args!("there is no format {number}")))
}

fn function(r: &mut Reader) -> Result<Option<Function>> {
    let number = r.u8("kind of function")?;
    let bytes = r.blob("function")?;
    if number == 0 && bytes.is_empty() {
        return Ok(None);
    }
    match Function::from_parts(number, bytes) {
        Some(function) => Ok(Some(function)),
        None => Err(r.wrong(format_args!("a function of kind {number} that cannot be read"))),
    }
}

fn run(body: Bytes) -> Result<RunColumns> {
    let mut r = Reader::new("RUN", body);
    let session = r.u32("session")?;
    let flags = r.u32("flags")?;
    if flags > 1 {
        return Err(r.wrong(format_args!("unknown flags {flags:#x}")));
    }
    let count = r.count(FRAME_TASKS, "tasks")?;
    let all = r.u32("dependencies")? as usize;
    let ids = r.column(count, "task numbers", u64::from_le_bytes)?;
    let lengths = r.column(count, "lengths", u32::from_le_bytes)?;
    let (mut counts, mut dependency_lengths) = (Vec::new(), Vec::new());
    if all > 0 {
        counts = r.column(count, "numbers of dependencies", u32::from_le_bytes)?;
        dependency_lengths = r.column(all, "lengths of dependencies", u32::from_le_bytes)?;
        if counts.iter().map(|c| u64::from(*c)).sum::<u64>() != all as u64 {
            return Err(r.wrong("the numbers of dependencies do not add up"));
        }
    }
    let mut tasks = Vec::with_capacity(count);
    for (id, len) in ids.into_iter().zip(lengths) {
        tasks.push(Task { id, payload: r.take(len as usize, "payload")?, dependencies: Box::default() });
    }
    let mut dependency_lengths = dependency_lengths.into_iter();
    for (task, count) in tasks.iter_mut().zip(counts) {
        let lengths = dependency_lengths.by_ref().take(count as usize);
        task.dependencies = lengths.map(|len| r.take(len as usize, "dependency")).collect::<Result<_>>()?;
    }
    r.end()?;
    Ok(RunColumns { session, step: flags == 1, tasks })
}
