//! Sessions of the grid in SQL.
//!
//! | table | a row for each |
//! | --- | --- |
//! | `grid.sessions` | session |
//! | `grid.tasks` | task: how it ended, or that it has not |
//! | `grid.results` | result that counted, as it is |
//! | `grid.inputs` | task: what was submitted |
//! | `grid.archives` | archived session |
//! | `grid.<session>` | row of the session's results, in real columns |
//!
//! Rows of tasks are read while a statement runs, session by session and page by page: `session = '...'` reads one, and LIMIT stops early.

mod archives;
mod inputs;
mod reader;
mod results;
mod sessions;
mod tasks;
mod typed;

use std::sync::Arc;

use tidemill_base::Env;
use tidemill_batch::service::Manager;
use tidemill_blocks::Blocks;
use tidemill_grid::archive::Archive;
use tidemill_query::Engine;

pub(crate) use reader::{Reader, Session};

pub(super) fn register(engine: &Engine, blocks: &Blocks, manager: &Manager, env: Env, archive: Archive, price: f64) {
    let reader = Reader::new(Arc::clone(&blocks.ledger), manager.clone(), archive, env);
    engine.register("grid", "sessions", Arc::new(sessions::Sessions { ledger: Arc::clone(&blocks.ledger), price }));
    engine.register("grid", "tasks", Arc::new(tasks::Tasks(reader.clone())));
    engine.register("grid", "results", Arc::new(results::Results(reader.clone())));
    engine.register("grid", "inputs", Arc::new(inputs::Inputs(reader.clone())));
    engine.register("grid", "archives", Arc::new(archives::Archives(reader.clone())));
    engine.register_family("grid", Arc::new(typed::Sessions::new(reader)));
}
