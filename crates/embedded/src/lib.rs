//! Embedded drivers: queue, table, objects, ledger, grants, fleet and schedule in one data folder.

pub mod fleet;
pub mod grants;
pub mod ledger;
