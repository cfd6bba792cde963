//! Tasks that failed, and tasks that wait for others.

use super::*;

#[test]
fn tasks_that_failed_or_wait_for_others() {
    const T: About = About::Task(0, 3);
    check(&[
        (
            "due later",
            T,
            |f| failure(f, 0, 3, false, Some(ahead(8))),
            "retrying",
            "attempt 1 of 3 failed on worker w1 with exit (an exit code that is no success): exit code 7",
            "tried again by itself",
        ),
        (
            "when",
            T,
            |f| failure(f, 0, 3, false, Some(ahead(8))),
            "retrying",
            "attempt 2 is due at 2023-11-14T22:13:28Z, in 8s",
            "by itself",
        ),
        (
            "due while paused",
            T,
            |f| {
                failure(f, 0, 3, false, Some(ago(8)));
                job_is(f, JobState::Paused);
            },
            "retrying",
            "it was paused",
            "`tidemill batch resume j1`",
        ),
        ("dead", T, |f| failure(f, 0, 3, true, None), "failed", "attempt 3 of 3 failed", "`tidemill batch retry j1 0/3`"),
        (
            "not tried again",
            T,
            |f| {
                failure(f, 0, 3, true, None);
                f.exceptions.get_mut(&(0, 3)).unwrap().attempts = 1;
            },
            "failed",
            "attempt 1, and failures like this are not tried again,",
            "`tidemill batch logs j1 0/3`",
        ),
        (
            "in the job",
            About::Job,
            |f| failure(f, 0, 3, false, Some(ahead(8))),
            "running",
            "1 task of stage 0 `a` waits for another attempt after exit, the first at 2023-11-14T22:13:28Z, in 8s",
            "--state retrying",
        ),
        (
            "skipped",
            About::Task(1, 3),
            |f| {
                failure(f, 0, 3, true, None);
                f.stages[1].skipped.insert(3);
            },
            "skipped",
            "task 3 of stage 0 `a`, which it takes its input from, failed for good",
            "`tidemill batch retry j1 0/3`; this task then runs as well",
        ),
        (
            "a gathering stage skipped",
            About::Task(2, 0),
            |f| {
                f.stages[1].row.failed = 2;
                f.stages[2].skipped.insert(0);
            },
            "skipped",
            "it takes its input from stage 1 `b`, of which 2 failed",
            "`tidemill batch retry j1`",
        ),
        (
            "streaming",
            About::Task(1, 3),
            |_| {},
            "waiting",
            "it takes its input from task 3 of stage 0 `a`, which is waiting",
            "nothing to do",
        ),
        (
            "streaming stage",
            About::Stage(1),
            |_| {},
            "open",
            "10 tasks of stage 1 `b` wait for the tasks of stage 0 `a` with the same numbers",
            "--stage 0",
        ),
        (
            "blocked",
            About::Stage(2),
            |f| f.stages[1].row.succeeded = 4,
            "blocked",
            "stage 2 `c` takes its input from stage 1 `b`, which has to be done first: 6 of 10 tasks are not settled",
            "`tidemill batch explain j1 --stage 1`",
        ),
        ("blocked task", About::Task(2, 0), |_| {}, "waiting", "which has to be done first", "--stage 1"),
        (
            "succeeded",
            T,
            |f| {
                f.stages[0].pending = RunSet::new();
                let attempt = |attempt, class| Attempt { attempt, class, worker: "w1".into(), run_us: 2_000_000 };
                f.attempts = vec![attempt(1, Some(FailureClass::Timeout)), attempt(2, None)];
            },
            "succeeded",
            "attempt 2 succeeded on worker w1 after 2s",
            "",
        ),
        ("being counted", T, |f| f.stages[0].pending = RunSet::new(), "reported", "being counted", "moment"),
        (
            "cancelled",
            T,
            |f| {
                f.stages[0].pending = RunSet::new();
                job_is(f, JobState::Cancelled);
            },
            "cancelled",
            "it was cancelled",
            "submit it anew",
        ),
        (
            "done stage",
            About::Stage(0),
            |f| {
                f.stages[0] = stage(0, "a", "done", 10);
                f.stages[0].row.succeeded = 10;
            },
            "done",
            "all 10 tasks succeeded",
            "",
        ),
        (
            "done stage with failures",
            About::Stage(0),
            |f| {
                f.stages[0] = stage(0, "a", "done", 10);
                f.stages[0].row.succeeded = 9;
                failure(f, 0, 3, true, None);
            },
            "done",
            "of 10 tasks 9 succeeded, 1 failed",
            "`tidemill batch retry j1`",
        ),
    ]);
}
