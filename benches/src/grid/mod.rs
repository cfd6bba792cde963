//! The grid beside what people run Python functions on today: calls that cost nothing, one call at a time, an overnight revaluation with
//! QuantLib-Python, and the bundled pricing library product by product.
//!
//! All of them run the same functions by the same scripts (`peers/grid/`); a system is a class of three methods there.

mod calls;
mod products;
mod python;
mod risk;
mod turn;

use anyhow::Result;

use crate::recorder::Recorder;

/// The benches of this folder, which the word `grid` stands for.
pub(crate) const BENCHES: [&str; 4] = ["grid-calls", "grid-trips", "grid-risk", "grid-products"];

/// Runs one of them, with a `share`-th of the work.
pub(crate) async fn run(name: &str, recorder: &mut Recorder, share: u64) -> Result<()> {
    match name {
        "grid-calls" => calls::run(recorder, 1_000_000 / share).await,
        "grid-trips" => calls::trips(recorder, 3_000 / share).await,
        "grid-risk" => risk::run(recorder, share).await,
        _ => products::run(recorder, share),
    }
}
