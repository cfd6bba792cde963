//! Claims: made-up records of treatments that providers want to be paid for, what they are worth, and who is owed how much.
//!
//! The data is generated from a seed and says nothing of anybody: names, prices and plans are made up. It has what makes real files
//! hard: quoted commas, quotes and line breaks, and records that are wrong in several ways.

mod generate;
mod price;
mod summary;
mod tables;

pub(crate) use generate::{Expected, generate};
pub(crate) use price::price_file;
pub(crate) use summary::summarise;
pub(crate) use tables::money;

/// The columns of a claims file.
pub(crate) const COLUMNS: [&str; 8] = ["claim_id", "provider", "service_date", "procedure", "units", "charge", "plan", "note"];
