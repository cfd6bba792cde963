//! What only sessions have.

use super::*;
use crate::explain::SessionFacts;

/// A running session with four settled tasks, all it has.
fn session(f: &mut Facts, open: bool, missing: Vec<u64>) {
    f.stages.truncate(1);
    f.stages[0].row.name = "tasks".into();
    f.stages[0].row.total = 4;
    f.stages[0].row.succeeded = 4;
    f.stages[0].pending = RunSet::new();
    f.session = Some(SessionFacts { open, missing, ..SessionFacts::default() });
}

#[test]
fn sessions_that_wait() {
    use About::{Job, Task};
    check(&[
        ("settled and open", Job, |f| session(f, true, vec![]), "running", "all of its 4 tasks are settled", "`tidemill grid close j1`"),
        (
            "open and empty",
            Job,
            |f| {
                session(f, true, vec![]);
                (f.stages[0].row.total, f.stages[0].row.succeeded) = (0, 0);
            },
            "running",
            "no tasks have been submitted",
            "submit tasks, or end it",
        ),
        ("closed", Job, |f| session(f, false, vec![]), "running", "it is about to be done", "nothing to do"),
        (
            "some wait for others",
            Job,
            |f| {
                session(f, true, vec![]);
                f.stages[0].row.succeeded = 1;
                f.stages[0].pending = RunSet::from_run(1, 1);
            },
            "running",
            "2 tasks wait for the results of others",
            "`tidemill grid explain j1 --task N`",
        ),
        (
            "waits for results",
            Task(0, 3),
            |f| {
                session(f, true, vec![1, 2]);
                f.stages[0].row.succeeded = 1;
            },
            "waiting",
            "it needs the results of tasks 1, 2, which are not there yet",
            "`tidemill grid explain j1 --task 1`",
        ),
        (
            "what it needs failed",
            Task(0, 3),
            |f| {
                session(f, false, vec![1]);
                f.stages[0].skipped = RunSet::from_run(3, 1);
            },
            "skipped",
            "it needs the result of task 1, which failed",
            "after a retry of that",
        ),
    ]);
}

#[test]
fn sessions_and_tasks_that_end_or_were_stopped() {
    use About::{Job, Task};
    check(&[
        (
            "cancelled by itself",
            Task(0, 3),
            |f| {
                session(f, true, vec![]);
                f.session.as_mut().unwrap().cancelled = true;
            },
            "cancelled",
            "it was cancelled",
            "submit it anew",
        ),
        (
            "cancelled by a budget",
            Task(0, 3),
            |f| {
                session(f, false, vec![]);
                f.job.reason = "its budget of 2 failures is used up".into();
                let session = f.session.as_mut().unwrap();
                (session.cancelled, session.stopped) = (true, true);
            },
            "cancelled",
            "the session was stopped: its budget of 2 failures",
            "a larger budget",
        ),
        (
            "about to end by itself",
            Job,
            |f| {
                session(f, true, vec![]);
                f.job.reason = "there was nothing to do".into();
            },
            "running",
            "it takes no more tasks: there was nothing to do",
            "`tidemill grid close j1`",
        ),
        (
            "paused",
            Job,
            |f| {
                session(f, true, vec![]);
                job_is(f, JobState::Paused);
            },
            "paused",
            "it was paused",
            "`tidemill grid resume j1`",
        ),
    ]);
    let mut f = facts();
    session(&mut f, true, vec![]);
    assert_eq!(explain(&f, Job).unwrap().subject, "session j1 `n`");
    assert_eq!(explain(&f, Task(0, 1)).unwrap().subject, "task 1 of session j1");
}
