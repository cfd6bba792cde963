//! SQL over what the systems know: rows in memory and column segments in the object store, by DataFusion.
//!
//! Why it is a crate: DataFusion is most of the build, so nothing but the server links it, and nothing in this API but
//! [`Answer`]'s batches is Arrow. The crate knows none of the systems. A system describes its rows as plain columns
//! ([`TableData`]) behind a [`Source`]; the [`Engine`] plans, limits and runs statements that read, and an [`Answer`] streams
//! rows as JSON, CSV, a table for people, or Arrow.
//!
//! ```
//! use std::sync::Arc;
//! use tidemill_query::{ColumnValues, Engine, EngineSettings, Limits, Scan, Scanned, Source, TableData, TableSchema, Type};
//!
//! struct Jobs;
//!
//! #[async_trait::async_trait]
//! impl Source for Jobs {
//!     fn schema(&self) -> TableSchema {
//!         TableSchema::new(&[("id", Type::Text), ("tasks", Type::UInt)])
//!     }
//!
//!     async fn scan(&self, _want: &Scan) -> tidemill_base::Result<Scanned> {
//!         let ids = ColumnValues::Text(vec!["j1".into(), "j2".into()]);
//!         Ok(TableData::with_rows(2).column("id", ids)?.column("tasks", ColumnValues::UInt(vec![3, 4]))?.into())
//!     }
//! }
//!
//! # async fn example() -> tidemill_base::Result<()> {
//! let engine = Engine::new(Arc::new(object_store::memory::InMemory::new()), EngineSettings::default())?;
//! engine.register("batch", "jobs", Arc::new(Jobs));
//! let answer = engine.query("SELECT sum(tasks) AS tasks FROM batch.jobs", Limits::default()).await?;
//! assert_eq!(answer.to_json_rows().await?, [serde_json::json!({"tasks": 7})]);
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```

mod answer;
mod arrow_rows;
mod catalog;
mod data;
mod engine;
mod failure;
mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod json_rows;
mod output;
mod paged;
pub mod parquet;
pub mod payloads;
mod pushdown;
mod risk;
mod run;
mod source;
mod statement;
mod store;
mod table;

pub use answer::{Answer, AnswerColumn};
pub use arrow_rows::ArrowRows;
pub use data::{Column, ColumnValues, TableData, TableSchema, Type};
/// The Arrow that [`Answer::next`]'s batches are made of.
pub use datafusion::arrow;
/// The parser whose statements a [`Rewrite`] changes.
pub use datafusion::sql::sqlparser;
pub use engine::{Description, Engine, EngineSettings, Limits};
pub use files::{FileFormat, Files, WrittenFile};
pub use json_rows::JsonRows;
pub use source::{Family, Pages, Rows, Scan, Scanned, SegmentRef, Source};
pub use statement::Rewrite;
