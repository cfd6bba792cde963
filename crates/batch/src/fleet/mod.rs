//! How many workers there should be, and trying that out beforehand.

mod chart;
mod load;
mod policy;
mod simulate;

pub use chart::chart;
pub use load::{Arrival, Load};
pub use policy::{Decision, ScaleInput, ScalePolicy, ScaleState, decide};
pub use simulate::{Outcome, Point, SimSettings, simulate};
