//! What manager and workers say to each other through the blocks. Both ends ship together, so this stays in the system; the
//! public interface is `tidemill-api`.
//!
//! The unit is a **range** of tasks of one stage. Its life:
//!
//! 1. The manager writes the range to the ledger, then sends a [`WorkItem`] to the class's work queue ([`keys::work_queue`]).
//! 2. A worker receives the message under a lease and *claims* the range: a conditional write of its [`RangeState`] (the fence)
//!    with the next **epoch**. If another worker's claim is still running, it leaves the message alone until that has ended.
//! 3. It works through the tasks that no earlier report settled, and extends message lease and claim while it does.
//! 4. It reports: one table transaction that moves the fence on (same epoch, next sequence number), adds the [`Report`] and, when
//!    there are outputs or logs, an [`OutputPage`]. If the epoch is not its own any more the transaction fails, and the worker drops what it
//!    did and sweeps the objects it wrote. So the first conditional completion wins and nothing counts twice.
//! 5. It sends a [`Done`] to the completions queue and, when the range is finished, acknowledges the work message.
//! 6. The manager folds reports in the order of their sequence numbers, once each, since the ledger keeps the last one folded.
//!
//! Whatever dies in between, the message comes back, and the fence says how far the range has come.

mod control;
mod engines;
mod grant;
mod heartbeat;
pub mod keys;
mod outputs;
mod range;
mod recall;
mod report;
mod results;
pub mod submission;

pub use control::{Control, HandBack};
pub use engines::{EngineBeat, EngineCounts, EnginesBeat, PoolBeat};
pub use grant::{TaskGrant, TaskGrants};
pub use heartbeat::{Heartbeat, RunningTask, WorkerPhase};
pub use outputs::{OutputPage, StoredFile, TaskOutput};
pub use range::{Claim, RangeState, claim};
pub use recall::Recall;
pub use report::{Done, Piece, PieceSource, Report, ResultAt, WorkItem};
pub use results::{ResultBody, ResultPage, TaskError};
pub use submission::Submission;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_base::{Error, Result};

/// The most tasks in one range; also how far before a task its output page may begin.
pub const MAX_RANGE: u64 = 10_000;

/// A finished range's fence is kept for so long: longer than any message about the range can live in a queue.
pub const FENCE_KEPT: std::time::Duration = std::time::Duration::from_secs(15 * 24 * 3600);

/// Encodes a protocol value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| Error::internal("encode protocol value").with_source(e))
}

/// Decodes a protocol value; `what` names it in the error.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| Error::corrupt(format!("{what} of {} bytes does not decode", bytes.len())).with_source(e))
}
