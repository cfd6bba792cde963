//! What host and engine say to each other: frames, and the messages in them. No I/O here; `docs/reference/engine-protocol.md` is the
//! same for those who write an engine in another language.
//!
//! Both directions are here, each with encoder and decoder, so that the host, the Rust kit and the tests share one understanding.

mod bytes;
mod frame;
mod from_engine;
mod from_host;

pub use frame::{Frame, Frames};
pub use from_engine::{FromEngine, Hello, Library, Opened, Refusal, ResultColumns, results};
pub use from_host::{FromHost, Open, RunColumns, Start, order};

/// The version of the protocol that this crate speaks.
pub const PROTOCOL: u16 = 1;
/// Bytes before the body of a frame: its length (u32, little-endian) and its kind (u8).
pub const HEADER_BYTES: usize = 5;
/// No frame's body is longer unless both sides have agreed otherwise, bytes.
pub const FRAME_BYTES: u32 = 64 << 20;
/// No name is longer, bytes.
pub const NAME_BYTES: usize = 4096;
/// No text about an error is longer, bytes.
pub const TEXT_BYTES: usize = 1 << 20;
/// No list of packages, libraries or parameters has more entries.
pub const LIST_ITEMS: usize = 4096;
/// No frame has more tasks or results.
pub const FRAME_TASKS: usize = 1 << 16;

/// The kinds of frames. Those of the host are below 0x80.
pub mod kind {
    /// Host: the first frame.
    pub const START: u8 = 0x01;
    /// Host: open a session.
    pub const OPEN: u8 = 0x02;
    /// Host: close a session.
    pub const CLOSE: u8 = 0x03;
    /// Host: run tasks.
    pub const RUN: u8 = 0x04;
    /// Host: do not start these tasks.
    pub const CANCEL: u8 = 0x05;
    /// Host: say that you are there.
    pub const PING: u8 = 0x06;
    /// Engine: the answer to START.
    pub const HELLO: u8 = 0x81;
    /// Engine: the session is open.
    pub const OPENED: u8 = 0x82;
    /// Engine: the session could not be opened.
    pub const REFUSED: u8 = 0x83;
    /// Engine: results of tasks.
    pub const RESULTS: u8 = 0x84;
    /// Engine: the answer to PING.
    pub const PONG: u8 = 0x86;
}

/// How a task ended, in RESULTS.
pub mod status {
    /// The payload is the result.
    pub const OK: u8 = 0;
    /// The payload is an error: class, message, traceback, value.
    pub const ERROR: u8 = 1;
    /// Cancelled before it was started; the payload is empty.
    pub const CANCELLED: u8 = 2;
}
