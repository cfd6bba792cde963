//! From inputs to tasks.

pub mod definition;
pub mod manifest;

pub use definition::{InputSource, StageDefinition, UpstreamInfo};
pub use manifest::{ManifestInfo, Reader};
