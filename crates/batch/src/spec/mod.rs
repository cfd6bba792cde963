//! From what a user wrote to a checked [`crate::model::JobSpec`].

pub(crate) mod suggest;
pub mod template;

pub use template::{Placeholder, Template, Vars, expand_args};
