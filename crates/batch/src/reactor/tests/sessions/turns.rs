//! Whose turn it is among the sessions and jobs of one user.

use super::*;

impl Bench {
    fn session_with_tasks(&mut self, id: &str, count: u64) {
        self.session_of(id, "ada", Terms::default(), RetrySpec::default());
        self.core.on_submitted(id, 0, count, Vec::new(), self.env.now());
    }

    /// Releases and settles what is released once; says how many tasks of each job went.
    fn round(&mut self, given: &mut BTreeMap<String, u64>) {
        self.tick();
        for item in std::mem::take(&mut self.queue) {
            *given.entry(item.job.clone()).or_default() += item.len;
            self.settle(&item, |_, _, _| None);
        }
    }
}

#[test]
fn a_session_does_not_wait_for_all_tasks_of_an_older_one() {
    let mut b = Bench::new();
    b.session_with_tasks("large", 1_000_000);
    let mut given = BTreeMap::new();
    for _ in 0..10 {
        b.round(&mut given);
    }
    assert!(given["large"] < 900_000, "{given:?}");
    b.session_with_tasks("small", 1);
    b.round(&mut given);
    assert_eq!(given.get("small"), Some(&1), "{given:?}");
}

#[test]
fn sessions_of_a_user_get_equal_parts_and_so_do_all_jobs_together() {
    let mut b = Bench::new();
    b.session_with_tasks("s1", 100_000);
    b.session_with_tasks("s2", 100_000);
    for id in ["j1", "j2"] {
        b.submit(id, "ada", 0, vec![stage("a", array(100_000))]);
    }
    let mut given = BTreeMap::new();
    while given.values().sum::<u64>() < 60_000 {
        b.round(&mut given);
    }
    let part = |id: &str| given.get(id).copied().unwrap_or(0) as f64;
    assert!((0.6..1.6).contains(&(part("s1") / part("s2"))), "{given:?}");
    assert!((0.6..1.6).contains(&(part("s1") / part("j1"))), "{given:?}");
    assert_eq!(part("j2"), 0.0, "jobs go one after the other: {given:?}");
}

#[test]
fn what_a_user_was_given_in_one_class_is_not_forgotten_when_another_is_released() {
    let mut b = Bench::new();
    let workers = Capacity { workers: 1, slots: 1 };
    b.core.on_workers([("default".to_owned(), workers), ("other".to_owned(), workers)].into());
    for (id, user, class) in [("j1", "ann", "default"), ("j2", "bob", "default"), ("j3", "cat", "other")] {
        b.submit(id, user, 0, vec![stage("a", array(100_000))]);
        b.core.jobs.get_mut(id).unwrap().class = class.to_owned();
    }
    let mut given = BTreeMap::new();
    while given.get("j1").copied().unwrap_or(0) < 20_000 {
        b.tick();
        // One range at a time ends, so that each time one is released and the two users are compared anew.
        let item = b.queue.remove(0);
        *given.entry(item.job.clone()).or_default() += item.len;
        b.settle(&item, |_, _, _| None);
    }
    let ratio = given["j1"] as f64 / given.get("j2").copied().unwrap_or(0) as f64;
    assert!((0.6..1.6).contains(&ratio), "{given:?}");
}
