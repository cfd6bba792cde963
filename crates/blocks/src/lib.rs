//! The blocks: what Tidemill's systems need from the outside world, as traits.
//!
//! A block is a trait, its value types, a list of capabilities and a conformance suite (in `tidemill-blocks-test`). A driver
//! implements the trait; claiming a capability is signing up for its tests. The systems hold [`Blocks`] and know nothing of
//! what stands behind it, which is why the same job runs on a laptop and in a cloud account.
//!
//! What an embedded driver promises and what an engine such as SQS promises is not the same thing. The traits promise only what
//! every driver keeps: delivery at least once, leases that may end early, listings that may be paged. The systems are written
//! for that and the faulty wrappers of `tidemill-blocks-test` see to it that they are.
//!
//! ```no_run
//! # async fn example(blocks: tidemill_blocks::Blocks) -> tidemill_base::Result<()> {
//! use std::time::Duration;
//! use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
//!
//! blocks.queue.ensure("mail", QueueSettings::default()).await?;
//! blocks.queue.send("mail", vec![NewMessage::now("hello")]).await?;
//! let got = blocks.queue.receive("mail", Receive::up_to(10, Duration::from_secs(30))).await?;
//! let receipts: Vec<_> = got.iter().map(|d| d.receipt.clone()).collect();
//! blocks.queue.ack("mail", &receipts).await?;
//! # Ok(()) }
//! ```

pub mod check;
pub mod fleet;
pub mod grants;
pub mod ledger;
pub mod memory;
pub mod objects;
pub mod payload;
pub mod queue;
pub mod schedule;
pub mod table;

use std::sync::Arc;

pub use tidemill_base::{Error, ErrorKind, Result};

/// One of each block, as a system holds them.
#[derive(Debug, Clone)]
pub struct Blocks {
    /// Bytes under names.
    pub objects: objects::Objects,
    /// Durable messages with leases.
    pub queue: Arc<dyn queue::Queue>,
    /// Items by partition and sort key, with conditional writes.
    pub table: Arc<dyn table::Table>,
    /// Relational records.
    pub ledger: Arc<dyn ledger::Ledger>,
    /// Temporary credentials.
    pub grants: Arc<dyn grants::Grants>,
    /// Groups of workers.
    pub fleet: Arc<dyn fleet::Fleet>,
}
