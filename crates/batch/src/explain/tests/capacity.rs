//! Work that is ready and that nobody takes.

use super::*;

#[test]
fn work_that_nobody_takes() {
    use About::{Job, Task};
    const T: About = Task(0, 7);
    check(&[
        (
            "nobody at all",
            Job,
            |f| f.workers.clear(),
            "running",
            "no worker that takes class `default`, and no group",
            "`tidemill worker --manager URL --class default --slots N`",
        ),
        (
            "group of none",
            T,
            |f| {
                f.workers.clear();
                group(f, 0, 0, vec![], None);
            },
            "waiting",
            "its maximum is 0",
            "--workers 0..N",
        ),
        (
            "group with trouble",
            Job,
            |f| {
                f.workers.clear();
                group(f, 2, 1, vec![], Some("`tidemill` exited with 2 five times"));
            },
            "running",
            "has trouble: `tidemill` exited with 2 five times",
            "put right",
        ),
        (
            "group starting",
            T,
            |f| {
                f.workers.clear();
                let member = Member { id: "m1".into(), state: MemberState::Starting, protected: false, started_at: ago(3) };
                group(f, 2, 1, vec![member], None);
            },
            "waiting",
            "worker m1 of the group `default` is starting, since 2023-11-14T22:13:17Z, for 3s",
            "takes work as soon as it is up",
        ),
        (
            "group asleep",
            T,
            |f| {
                f.workers.clear();
                group(f, 2, 0, vec![], None);
            },
            "waiting",
            "has 0 workers and should have 0",
            "scaled to its backlog",
        ),
        ("silent", T, |f| f.workers[0].at = ago(20), "waiting", "worker w1 of class `default` has been silent for 20s", "start a worker"),
        ("draining", T, |f| f.workers[0].phase = WorkerPhase::Draining, "waiting", "w1 of class `default` is draining", "start a worker"),
        ("of another class", T, |f| f.workers[0].class = "gpu".into(), "waiting", "no worker that takes class `default`", "start a worker"),
        (
            "slots too few",
            T,
            |f| f.spec.stages[0].resources.cpus = 4,
            "waiting",
            "a task needs 4 slots, and the largest worker of class `default` has 2",
            "--slots 4",
        ),
        (
            "named resource missing",
            Job,
            |f| f.spec.stages[0].resources.named.extend([("gpu".to_owned(), 1)]),
            "running",
            "a task needs 1 of `gpu`",
            "`resources`",
        ),
        (
            "memory too small",
            Job,
            |f| f.spec.stages[0].resources.memory = 2 << 30,
            "running",
            "a task needs 2 GiB of memory",
            "`resources`",
        ),
        (
            "slots taken by another's job",
            T,
            |f| {
                runs(&mut f.workers[0], "j2", 0, 1);
                runs(&mut f.workers[0], "j1", 0, 2);
                f.rivals = vec![Rival { id: "j2".into(), user: "bob".into(), priority: 5, open: 30 }];
                group(f, 1, 1, vec![], None);
            },
            "waiting",
            "all 2 slots of class `default` are taken: 1 by this job, 1 by job j2 (user bob, priority 5)",
            "`tidemill batch priority j1 6`",
        ),
        (
            "at the maximum",
            T,
            |f| {
                runs(&mut f.workers[0], "j1", 0, 1);
                runs(&mut f.workers[0], "j1", 0, 2);
                group(f, 1, 1, vec![], None);
            },
            "waiting",
            "at its maximum of 1 worker",
            "add a worker",
        ),
        (
            "a wide task",
            T,
            |f| {
                f.spec.stages[0].resources.cpus = 2;
                runs(&mut f.workers[0], "j9", 0, 1);
            },
            "waiting",
            "a task takes 2 slots at once, and no worker of class `default` has more than 1 free",
            "slots come free",
        ),
        (
            "higher priority",
            T,
            |f| f.rivals = vec![Rival { id: "j2".into(), user: "bob".into(), priority: 5, open: 30 }],
            "waiting",
            "higher priority go first: j2 (user bob, priority 5, 30 tasks left)",
            "`tidemill batch priority j1 6`",
        ),
        ("its turn is about to come", T, |_| {}, "waiting", "2 slots free", "nothing to do"),
        ("its place", T, |_| {}, "waiting", "with 7 tasks of its stage before it", "nothing to do"),
    ]);
}
