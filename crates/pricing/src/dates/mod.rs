//! Dates of contracts: holidays, day counts, schedules.
//!
//! Written from the 2006 ISDA Definitions. Which days are holidays is data and never code.

mod calendar;
mod day_count;
mod tenor;

pub use calendar::{Calendar, Roll, schedule};
pub use day_count::DayCount;
pub use jiff::civil::Date;
pub use tenor::Tenor;
