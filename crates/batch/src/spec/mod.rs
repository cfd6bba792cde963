//! From what a user wrote to a checked [`crate::model::JobSpec`]: a TOML file, JSON, or a command line; and from a task's values to its
//! command ([`template`]).
//!
//! All three ways end in [`validate`], so what one refuses the others refuse too. [`check_resources`] is separate, since it needs
//! to know the workers.

mod command_line;
mod cron;
mod defaults;
mod file;
mod json;
pub mod limits;
mod names;
mod node;
mod output;
mod shape;
mod shape_stage;
pub(crate) mod suggest;
pub mod template;
mod validate;
mod validate_stage;

pub use command_line::{CommandInput, CommandLine};
pub use cron::next_tick;
pub use defaults::fill;
pub use file::from_toml;
pub use json::from_json;
pub use names::check_output_name;
pub use output::output_name;
pub use shape::{DEFAULT_CLASS, parse_at};
pub use shape_stage::{DEFAULT_PART_BYTES, parse_array, parse_secret};
pub use template::{Placeholder, Template, Vars, expand_args};
pub use validate::{check_resources, validate};
pub(crate) use validate_stage::key_regex;
