//! The writer thread and its group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_blocks::ledger::{Migration, Statement};
use tokio::sync::{mpsc, oneshot};

use super::migrate;
use super::sql::{self, from_sqlite};

/// Callers that may wait in the queue before the next one waits for room.
const QUEUE: usize = 1024;
/// The most callers in one commit, which bounds how long the first of them waits for the last.
const GROUP: usize = 256;

/// What a caller wants done, as one unit.
#[derive(Debug)]
pub(super) enum Work {
    Statements(Vec<Statement>),
    Migrate(Vec<Migration>),
    #[cfg(test)]
    Panic,
}

#[derive(Debug)]
struct Job {
    work: Work,
    answer: oneshot::Sender<Result<Vec<u64>>>,
}

/// The handle on the thread. Dropping it lets the thread finish what is queued and waits for it.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(conn: Connection, env: Env) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("ledger-writer".into()).spawn(move || serve(&conn, jobs, &env))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Durable when it returns `Ok`.
    pub(super) async fn submit(&self, work: Work) -> Result<Vec<u64>> {
        let closed = || Error::unavailable("the ledger is closed");
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Job { work, answer }).await.map_err(|_| closed())?;
        let lost = "the ledger's writer failed while it worked on this; whether it took effect is not known, read before trying again";
        answered.await.map_err(|_| Error::unavailable(lost))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was answered to the callers already.
            drop(thread.join());
        }
    }
}

fn serve(conn: &Connection, mut jobs: mpsc::Receiver<Job>, env: &Env) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        let taken = std::mem::take(&mut group);
        // A panic drops the group's answers, which their callers take for `Unavailable`; the thread lives on for the next ones.
        if catch_unwind(AssertUnwindSafe(|| run_group(conn, taken, env))).is_err() {
            tracing::error!("the ledger's writer panicked; the transactions of its group are rolled back");
            abandon(conn);
        }
    }
}

/// Leaves no transaction open behind a failure.
fn abandon(conn: &Connection) {
    if !conn.is_autocommit()
        && let Err(e) = conn.execute_batch("ROLLBACK")
    {
        tracing::error!(error = %e, "rolling back a group of ledger transactions failed");
    }
}

/// Why a group has no outcome of its own.
enum Broken {
    /// The outer transaction is gone and nothing took effect: one of the jobs has ended it, or a constraint checked at commit failed.
    Undone(Error),
    /// Nobody could be served.
    Failed(Error),
}

/// Runs all jobs under one commit and answers them. When one of them spoils the transaction for all, each gets its own.
fn run_group(conn: &Connection, jobs: Vec<Job>, env: &Env) {
    match commit_together(conn, &jobs, env) {
        Ok(outcomes) => {
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                // The caller may have gone; the transaction stands all the same.
                drop(job.answer.send(outcome));
            }
        }
        Err(Broken::Undone(_)) if jobs.len() > 1 => {
            abandon(conn);
            for job in jobs {
                run_group(conn, vec![job], env);
            }
        }
        Err(Broken::Undone(e) | Broken::Failed(e)) => {
            abandon(conn);
            for job in jobs {
                drop(job.answer.send(Err(Error::new(e.kind(), e.message()))));
            }
        }
    }
}

fn commit_together(conn: &Connection, jobs: &[Job], env: &Env) -> Result<Vec<Result<Vec<u64>>>, Broken> {
    let run = |sql: &str| conn.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(|e| from_sqlite(&e));
    run("BEGIN IMMEDIATE").map_err(Broken::Failed)?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        run("SAVEPOINT job").map_err(Broken::Failed)?;
        let outcome = perform(conn, &job.work, env);
        if conn.is_autocommit() {
            // `INSERT OR ROLLBACK`, or SQLite itself on a full disk, has ended the outer transaction.
            return Err(Broken::Undone(outcome.err().unwrap_or_else(|| Error::invalid("a statement ended its transaction"))));
        }
        if outcome.is_err() {
            run("ROLLBACK TO job").map_err(Broken::Failed)?;
        }
        run("RELEASE job").map_err(Broken::Failed)?;
        outcomes.push(outcome);
    }
    match run("COMMIT") {
        Ok(_) => Ok(outcomes),
        // A constraint that is checked at commit leaves the transaction open, and with it the way back.
        Err(e) if e.kind() == ErrorKind::Conflict => Err(Broken::Undone(e)),
        Err(e) => Err(Broken::Failed(e.context("commit"))),
    }
}

fn perform(conn: &Connection, work: &Work, env: &Env) -> Result<Vec<u64>> {
    match work {
        Work::Statements(statements) => {
            statements.iter().enumerate().map(|(at, statement)| sql::execute(conn, at + 1, statement)).collect()
        }
        Work::Migrate(migrations) => migrate::apply(conn, migrations, env).map(|()| Vec::new()),
        #[cfg(test)]
        Work::Panic => panic!("asked for by a test"),
    }
}
