//! Who gets the slots: users share them, and named resources go where they are.

use std::fs;

use tidemill_it::{Options, Server, Worker, eventually};

#[test]
fn a_user_with_few_tasks_is_not_kept_behind_one_with_many() {
    let server = Server::start(Options { workers: "1..1", slots: 2, company: false, calm: true, ..Options::default() });
    let log = server.folder().join("order");
    let task = format!("echo $1 >> '{}'; sleep 0.2", log.display());
    let token = |name: &str| {
        server.cli(&["user", "create", name, "--role", "user"]).ok();
        server.cli(&["token", "create", "--user", name, "--role", "user", "-o", "quiet"]).ok().word().to_owned()
    };
    let (many, few) = (token("mary"), token("fred"));
    let submit = |token: &str, array: &str, who: &str| {
        let args = ["batch", "run", "--detach", "--array", array, "--", "sh", "-c", &task, "sh", who];
        server.call_as(token, &args).run().ok().word().to_owned()
    };
    // Three jobs of the same user weigh no more than one of another.
    let hers: Vec<String> = (0..3).map(|_| submit(&many, "1-100", "mary")).collect();
    server.until(&hers[0], "succeeded", 4);
    let his = submit(&few, "1-20", "fred");
    let before = fs::read_to_string(&log).unwrap().lines().take_while(|who| *who == "mary").count();
    assert_eq!(server.ended(&his)["state"], "succeeded");
    let order = fs::read_to_string(&log).unwrap();
    let order: Vec<&str> = order.lines().skip(before).collect();
    let last = order.iter().rposition(|who| *who == "fred").unwrap();
    let others = order[..last].iter().filter(|who| **who == "mary").count();
    // Half and half would be 20; what was out already comes on top, some seconds of it. Taken in turn it would be more than 200.
    assert!(others < 120, "{others} tasks of the other user went before the last of 20");
    assert!(others > 0, "the other user was not shut out either");
    hers.iter().for_each(|id| drop(server.cli(&["batch", "cancel", id]).ok()));
}

#[test]
fn named_resources_are_found_where_they_are_and_not_exceeded() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let _plain = Worker::start(&server, "plain", &["--slots", "4"]);
    let _special = Worker::start(&server, "special", &["--slots", "4", "--offer", "scanner=2"]);
    let log = server.folder().join("at-once");
    let task =
        format!("ls '{0}' | wc -l >> '{1}'; touch '{0}/'$$; sleep 0.3; rm '{0}/'$$", log.display(), server.folder().join("seen").display());
    fs::create_dir(&log).unwrap();
    let id = server.detach(&["--array", "1-12", "--resource", "scanner=1", "--", "sh", "-c", &task]);
    let job = server.ended(&id);
    assert_eq!(job["state"], "succeeded", "{job}");
    let rows = server.sql(&format!("SELECT DISTINCT worker FROM batch.tasks WHERE job = '{id}'"));
    assert_eq!(rows.iter().map(|r| r["worker"].as_str().unwrap()).collect::<Vec<_>>(), ["special"]);
    let seen = fs::read_to_string(server.folder().join("seen")).unwrap();
    let most = seen.lines().map(|n| n.trim().parse::<u32>().unwrap()).max().unwrap();
    assert!(most < 2, "{} ran at once with two scanners", most + 1);
    // A task that takes all slots has the worker for itself.
    let id = server.detach(&["--array", "1-3", "--cpus", "4", "--", "true"]);
    assert_eq!(server.ended(&id)["state"], "succeeded");
}

#[test]
fn work_of_another_class_waits_for_workers_of_that_class_and_says_so() {
    let server = Server::start(Options { workers: "1..1", ..Options::default() });
    let id = server.detach(&["--class", "night", "--", "true"]);
    let why = eventually("it is explained", || {
        let why = server.cli(&["batch", "explain", &id, "-o", "json"]).ok().json();
        why.to_string().contains("night").then_some(why)
    });
    assert!(!why["because"].as_array().unwrap().is_empty(), "{why}");
    assert_ne!(server.job(&id)["state"], "succeeded", "a worker of another class took it");
    let _night = Worker::start(&server, "owl", &["--class", "night", "--slots", "1"]);
    assert_eq!(server.ended(&id)["state"], "succeeded");
    let rows = server.sql(&format!("SELECT worker FROM batch.tasks WHERE job = '{id}'"));
    assert_eq!(rows[0]["worker"], "owl");
}
