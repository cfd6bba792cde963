//! SQL by PostgreSQL's wire protocol, version 3, so that psql, drivers and BI tools can ask what they ask a PostgreSQL.
//!
//! Why it is a crate of its own, and not a library for the protocol: every statement has to pass through [`tidemill_query::Engine`], whose
//! threads, memory, time and refusals are the protection of the server that it lives in, and every byte that comes in is
//! untrusted. Decision 0008 has the alternatives. The crate knows no users: a [`Gate`] says who may come in.
//!
//! - `wire` are the messages, `value` both forms of values; `lex` cuts texts into statements.
//! - `session` answers: the simple and the extended protocol, cursors, COPY TO, settings.
//! - `rewrite` and `catalog` make the statements understood that tools send at start, about tables and the server.
//!
//! ```no_run
//! use std::net::IpAddr;
//! use std::sync::Arc;
//! use tidemill_base::{Env, Error, Result};
//! use tidemill_pgwire::{Endpoint, Gate, Pass, Settings, serve};
//! use tidemill_query::{Engine, EngineSettings};
//! use tidemill_runtime::{Kind, Shutdown, Tasks};
//!
//! #[derive(Debug)]
//! struct Guest;
//!
//! #[async_trait::async_trait]
//! impl Pass for Guest {
//!     fn user(&self) -> &str {
//!         "guest"
//!     }
//!     async fn check(&self) -> Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! struct Door;
//!
//! #[async_trait::async_trait]
//! impl Gate for Door {
//!     async fn admit(&self, _user: &str, password: &str, _from: IpAddr) -> Result<Box<dyn Pass>> {
//!         if password == "sesame" { Ok(Box::new(Guest)) } else { Err(Error::denied("wrong password")) }
//!     }
//! }
//!
//! # async fn example(tasks: Tasks, objects: Arc<dyn object_store::ObjectStore>) -> Result<()> {
//! let engine = Arc::new(Engine::new(objects, EngineSettings::default())?);
//! let endpoint = Endpoint::new(engine, Arc::new(Door), Env::system(), Settings::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:5432").await?;
//! let inner = tasks.clone();
//! tasks.spawn("sql", Kind::Essential, async move { serve(listener, endpoint, &inner).await });
//! # Ok(())
//! # }
//! ```

mod cancel;
mod catalog;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gate;
mod lex;
mod link;
mod rewrite;
mod serve;
mod session;
mod value;
mod wire;

pub use gate::{Gate, Pass};
pub use serve::{Endpoint, Settings, serve};
