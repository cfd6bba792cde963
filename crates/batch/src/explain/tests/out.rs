//! Tasks that are in the queue or with a worker.

use super::*;

#[test]
fn tasks_that_are_out() {
    const T: About = About::Task(0, 3);
    check(&[
        (
            "running",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                runs(&mut f.workers[0], "j1", 0, 3);
            },
            "running",
            "worker w1 runs attempt 1 of it since 2023-11-14T22:13:13Z, for 7s",
            "killed by its timeout at 2023-11-14T22:18:13Z",
        ),
        (
            "running on a silent worker",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                runs(&mut f.workers[0], "j1", 0, 3);
                f.workers[0].at = ago(40);
            },
            "running",
            "worker w1 has been silent for 40s",
            "another takes range 0 when its lease ends",
        ),
        (
            "leased",
            T,
            |f| released(f, Some(("w1", ahead(20)))),
            "waiting",
            "it is in range 0 (tasks 0 to 4, attempt 1), leased by worker w1, released since 2023-11-14T22:13:10Z, for 10s",
            "ends at 2023-11-14T22:13:40Z, in 20s if the worker is lost",
        ),
        (
            "leased by a worker that is gone",
            T,
            |f| released(f, Some(("w9", ahead(20)))),
            "waiting",
            "worker w9 has not been heard of",
            "if the worker is lost",
        ),
        ("queued", T, |f| released(f, None), "waiting", "in the queue since 2023-11-14T22:13:10Z, for 10s", "nothing to do"),
        (
            "queued for long",
            T,
            |f| {
                released(f, None);
                f.stages[0].ranges[0].released_at = ago(600);
                f.queue.ready = 4;
            },
            "waiting",
            "nobody has claimed range 0 for long; the queue of class `default` has 4 ready",
            "`tidemill fleet list`",
        ),
        (
            "lease ended",
            T,
            |f| released(f, Some(("w9", ago(2)))),
            "waiting",
            "the lease of worker w9 on it ended 2023-11-14T22:13:18Z",
            "nothing to do",
        ),
        (
            "reported",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                f.stages[0].ranges[0].fence.as_mut().unwrap().settled.insert(3);
                runs(&mut f.workers[0], "j1", 0, 3);
                f.workers[0].running.clear();
            },
            "reported",
            "the manager is about to count it",
            "moment",
        ),
        (
            "cancelling",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                runs(&mut f.workers[0], "j1", 0, 3);
                job_is(f, JobState::Cancelling);
            },
            "running",
            "its job is being cancelled",
            "within seconds",
        ),
        ("the whole stage", About::Stage(0), |f| released(f, None), "open", "5 tasks of stage 0 `a` are in the queue", "nothing to do"),
        (
            "the whole stage, a lost worker",
            About::Stage(0),
            |f| released(f, Some(("w9", ahead(20)))),
            "open",
            "range 0 of stage 0 `a` (5 tasks) is leased by worker w9, and worker w9 has not been heard of",
            "another worker takes range 0",
        ),
    ]);
}
