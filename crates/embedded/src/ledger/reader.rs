//! A few connections for queries, lent to one query each.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tidemill_base::{Error, Result};
use tokio::sync::Semaphore;

#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

/// Returns the connection when the query ends, panics included.
struct Lent {
    idle: Arc<Mutex<Vec<Connection>>>,
    conn: Option<Connection>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
    }
}

impl Readers {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self { idle: Arc::new(Mutex::new(connections)), permits }
    }

    /// Runs `f` on an idle connection, on a thread where blocking is allowed.
    pub(super) async fn run<T: Send + 'static>(&self, f: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let closed = || Error::unavailable("the ledger is closed");
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let idle = Arc::clone(&self.idle);
        let work = move || {
            // Declared first, so that it is given back last, when the connection lies idle again.
            let _permit = permit;
            let conn = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let lent = Lent { idle, conn };
            f(lent.conn.as_ref().ok_or_else(closed)?)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| Error::internal("a ledger query did not run to its end").with_source(e))?
    }
}
