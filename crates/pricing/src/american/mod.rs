//! American options: exercise at any time.
//!
//! There is no closed form. [`finite_differences`] is the reference here; the approximations trade digits for speed.

pub mod approximations;
pub mod bjerksund_stensland;
pub mod finite_differences;
