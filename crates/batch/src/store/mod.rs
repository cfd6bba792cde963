//! What the ledger keeps of batch: the schema, the statements that write it, and the rows that are read back.
//!
//! Only the leading manager writes stages, ranges and exceptions, each transaction guarded by its leadership fence. Everybody may
//! insert jobs and commands.

pub mod course;
mod load;
pub mod read;
pub(crate) mod rows;
mod schema;
pub(crate) mod sessions;

pub(crate) use load::{load, unflushed};
pub(crate) use rows::{
    Command, NewJob, command_delete, command_insert, commands, exception_delete, exception_revive, exception_upsert, insert_job,
    job_update, range_delete, range_flushed, range_insert, range_update, segment_insert, stage_update,
};
pub use schema::MIGRATIONS;
