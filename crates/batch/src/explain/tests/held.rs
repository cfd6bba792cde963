//! Jobs that wait, are held, or have ended.

use super::*;

#[test]
fn jobs_that_have_not_started_or_are_held() {
    use About::Job;
    check(&[
        ("no leader", Job, |f| f.led = false, "running", "no manager leads", "server's log"),
        (
            "time",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.job.start_after = ahead(90);
            },
            "waiting",
            "it starts at 2023-11-14T22:14:50Z, in 1m30s",
            "nothing to do until then",
        ),
        (
            "cron",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.spec.cron = Some("0 3 * * *".into());
            },
            "waiting",
            "cron line `0 3 * * *` in UTC, next at 2023-11-15T03:00:00Z",
            "`tidemill batch cancel j1` ends the schedule",
        ),
        (
            "other job",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.after = vec![("j0".into(), Some(JobState::Succeeded)), ("j9".into(), Some(JobState::Paused))];
            },
            "waiting",
            "it waits for job j9, which is paused",
            "`tidemill batch explain j9`",
        ),
        (
            "other job failed",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.after = vec![("j9".into(), Some(JobState::Failed))];
            },
            "waiting",
            "has failed: this one is about to be cancelled",
            "submit both anew",
        ),
        (
            "other job gone",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.after = vec![("j9".into(), None)];
            },
            "waiting",
            "job j9, which is not there any more",
            "without that job",
        ),
        (
            "cutting",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.cut = false;
            },
            "waiting",
            "its inputs are being cut into tasks",
            "starts by itself",
        ),
        ("due", Job, |f| job_is(f, JobState::Waiting), "waiting", "starts in a moment", "by itself"),
        (
            "paused",
            Job,
            |f| {
                job_is(f, JobState::Paused);
                runs(&mut f.workers[0], "j1", 0, 1);
            },
            "paused",
            "1 task that had been started runs to the end",
            "`tidemill batch resume j1`",
        ),
        (
            "cancelling: a worker runs tasks",
            Job,
            |f| {
                job_is(f, JobState::Cancelling);
                runs(&mut f.workers[0], "j1", 0, 1);
                runs(&mut f.workers[0], "j1", 0, 2);
            },
            "cancelling",
            "worker w1 still runs 2 tasks (STAGE/TASK 0/1, 0/2)",
            "within seconds",
        ),
        (
            "cancelling: a lost worker",
            Job,
            |f| {
                job_is(f, JobState::Cancelling);
                released(f, Some(("w9", ahead(20))));
            },
            "cancelling",
            "range 0 of stage 0 `a` is with worker w9, whose lease ends at 2023-11-14T22:13:40Z, in 20s",
            "free when its lease ends",
        ),
    ]);
}

#[test]
fn jobs_that_have_ended() {
    use About::Job;
    check(&[
        (
            "succeeded",
            Job,
            |f| {
                job_is(f, JobState::Succeeded);
            },
            "succeeded",
            "all 21 tasks of 3 stages succeeded",
            "",
        ),
        (
            "failed",
            Job,
            |f| {
                job_is(f, JobState::Failed);
                failure(f, 0, 4, true, None);
                f.stages[1].row.skipped = 1;
            },
            "failed",
            "1 task of stage 0 `a` failed with exit (an exit code that is no success), task 4: exit code 7",
            "`tidemill batch retry j1`",
        ),
        (
            "could not be cut",
            Job,
            |f| {
                job_is(f, JobState::Failed);
                f.job.reason = "stage `a`: no object matches".into();
            },
            "failed",
            "no object matches",
            "submit it anew",
        ),
        (
            "cancelled",
            Job,
            |f| {
                job_is(f, JobState::Cancelled);
                f.stages[0].row.cancelled = 10;
            },
            "cancelled",
            "10 tasks had not come to an end",
            "submit it anew",
        ),
    ]);
}
