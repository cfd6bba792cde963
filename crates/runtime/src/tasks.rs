//! Supervised tasks: each has a name and a kind that says what its end means.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_base::Result;
use tokio_util::task::TaskTracker;

use crate::{Shutdown, timeout};

/// What a task's end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The component cannot live without it: an error or a panic starts the shutdown of the whole process.
    Essential,
    /// Serves one request or one connection: an error is logged and that is all.
    Request,
}

/// The tasks of one component.
#[derive(Debug, Clone)]
pub struct Tasks {
    component: &'static str,
    shutdown: Shutdown,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<u64, &'static str>>>,
    next: Arc<std::sync::atomic::AtomicU64>,
}

/// Takes the task off the list and, when it panicked, says so.
struct Registered {
    tasks: Tasks,
    id: u64,
    name: &'static str,
    kind: Kind,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.tasks.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        if std::thread::panicking() {
            tracing::error!(component = self.tasks.component, task = self.name, "task panicked");
            if self.kind == Kind::Essential {
                self.tasks.shutdown.drain();
            }
        }
    }
}

impl Tasks {
    /// No tasks yet. `shutdown` is started when an essential one fails.
    pub fn new(component: &'static str, shutdown: Shutdown) -> Self {
        Self { component, shutdown, tracker: TaskTracker::new(), running: Arc::default(), next: Arc::default() }
    }

    /// The shutdown they live under.
    pub const fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn(&self, name: &'static str, kind: Kind, future: impl Future<Output = Result<()>> + Send + 'static) {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, name);
        let registered = Registered { tasks: self.clone(), id, name, kind };
        let task = async move {
            let tasks = &registered.tasks;
            match future.await {
                Ok(()) => {}
                Err(e) if kind == Kind::Essential => {
                    tracing::error!(component = tasks.component, task = name, error = %e.chain(), "essential task failed, shutting down");
                    tasks.shutdown.drain();
                }
                Err(e) => tracing::warn!(component = tasks.component, task = name, error = %e.chain(), "task failed"),
            }
        };
        drop(tokio::spawn(self.tracker.track_future(task)));
    }

    /// Waits until all have ended, at most `limit`. Those still running are named in the log.
    pub async fn join(&self, limit: Duration) {
        self.tracker.close();
        if timeout(limit, "joining tasks", self.tracker.wait()).await.is_err() {
            let names: Vec<_> = self.running.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect();
            tracing::warn!(component = self.component, still_running = ?names, "tasks did not end in time");
        }
    }
}
