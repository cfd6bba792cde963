//! Workers and groups over HTTP, the overview, and the loop that scales.

mod edge;
mod record;
mod scaling;

pub use edge::routes;
pub use scaling::{Scaler, ScalerSettings};
