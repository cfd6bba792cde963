//! Elementary and special functions written so that a loop over them becomes vector code, and so that every machine gives the same
//! bits.
//!
//! The functions of the platform's C library differ in their last bits from one machine to the next, and a call into it stops the
//! vectoriser. Those here use `+ - * /`, comparisons and shifts alone; nothing contracts a multiplication and an addition into one
//! rounding, so two, four or eight lanes, or none, compute the same value.

pub mod bivariate;
pub mod elementary;
pub mod inverse;
pub mod lanes;
pub mod normal;
pub mod quadrature;
pub mod roots;

pub use elementary::{exp, ln, powf, sin_cos};
pub use normal::{cdf, pdf};
