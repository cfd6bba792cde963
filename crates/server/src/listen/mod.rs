//! The listener: where it may listen, with which certificate, and how connections are served and let go.

mod policy;
mod serve;
mod tls;

pub use policy::check_exposure;
pub use serve::{bind, serve};
pub use tls::{Identity, from_files, generated, identity};
