//! Any manager answers everything.

use std::fs;

use tidemill_it::{Engine, eventually};

use super::{Mill, check_whole, counting, on_engines, rows_of};

on_engines! {
    what_one_manager_is_told_the_other_knows
    failures_are_read_and_tried_again_at_either
    a_token_made_at_one_manager_counts_at_the_other
}

fn what_one_manager_is_told_the_other_knows(engine: &Engine) {
    let mill = Mill::start(engine);
    let (leader, _) = mill.leader();
    let [lead, follow] = [&mill.managers[leader], &mill.managers[1 - leader]];

    // Submitted at the follower, asked for at both while it runs: counts only grow.
    let id = counting(follow, 60, "0.1");
    follow.until(&id, "succeeded", 5);
    for asked in [lead, follow, lead, follow] {
        let before = follow.job(&id)["tasks"]["succeeded"].as_u64().unwrap();
        let (rows, tasks) = rows_of(asked, &id);
        assert!(rows == tasks && rows + 30 >= before, "{rows} rows of {tasks} tasks, {before} had succeeded");
    }
    check_whole(&mill.managers, &id, 60);

    // Inputs that were uploaded at one are read wherever the task runs; its log is read at the other.
    let file = follow.folder().join("words.txt");
    fs::write(&file, "tide\nmill\npond\n").unwrap();
    let script = "echo said $1; echo $1 | tr a-z A-Z > \"$2\"";
    let lines = file.to_string_lossy().into_owned();
    let job = follow
        .cli(&[
            "batch",
            "run",
            "-o",
            "json",
            "--lines",
            &lines,
            "--output-name",
            "{index}",
            "--",
            "sh",
            "-c",
            script,
            "sh",
            "{line}",
            "{out}",
        ])
        .ok()
        .json();
    let id = job["id"].as_str().unwrap();
    let results: Vec<Vec<u8>> = lead.results(id).into_values().collect();
    assert_eq!(results, [b"TIDE\n".to_vec(), b"MILL\n".to_vec(), b"POND\n".to_vec()]);
    assert_eq!(lead.cli(&["batch", "logs", id, "1"]).ok().stdout, "said mill\n");

    // Cancelled where it was not submitted.
    let id = lead.detach(&["--array", "1-40", "--", "sleep", "600"]);
    follow.until(&id, "running", 3);
    follow.cli(&["batch", "cancel", &id]).ok();
    assert_eq!(lead.ended(&id)["state"], "cancelled");
    assert_eq!(follow.workers().len(), 3);
    // They are free for others.
    lead.cli(&["batch", "run", "--array", "1-6", "--", "true"]).ok();
}

fn failures_are_read_and_tried_again_at_either(engine: &Engine) {
    let mill = Mill::start(engine);
    let [first, second] = &mill.managers;
    let gate = first.folder().join("gate");
    let script = format!("[ $1 != 4 ] || [ -e '{}' ] || {{ echo shut >&2; exit 3; }}", gate.display());
    let run = ["batch", "run", "--array", "1-9", "--retries", "1", "-o", "json", "--", "sh", "-c", &script, "sh", "{index}"];
    let job = first.cli(&run).exits(1).json();
    let id = job["id"].as_str().unwrap();
    assert_eq!((&job["tasks"]["failed"], &job["attempts"]), (&1.into(), &10.into()), "{job}");

    let letters = eventually("the dead letter is there", || {
        let found = second.cli(&["queue", "dead", "batch.dead", "-o", "json"]).ok().stdout;
        found.contains(id).then_some(found)
    });
    assert!(letters.contains("batch.dead") || letters.contains("exit"), "{letters}");
    let failures = second.sql(&format!("SELECT task, exit_code FROM batch.failures WHERE job = '{id}'"));
    assert_eq!((&failures[0]["task"], &failures[0]["exit_code"]), (&3.into(), &3.into()));
    assert!(second.cli(&["batch", "logs", id, "3"]).ok().stdout.contains("shut"));

    fs::write(&gate, "").unwrap();
    second.cli(&["batch", "retry", id]).ok();
    let job = eventually("the task succeeds after all", || {
        let job = first.job(id);
        (job["state"] == "succeeded").then_some(job)
    });
    assert_eq!((&job["tasks"]["succeeded"], &job["attempts"]), (&9.into(), &11.into()), "{job}");
}

fn a_token_made_at_one_manager_counts_at_the_other(engine: &Engine) {
    let mill = Mill::start(engine);
    let [first, second] = &mill.managers;
    first.cli(&["user", "create", "ada", "--role", "user"]).ok();
    let token = first.cli(&["token", "create", "--user", "ada", "--role", "user", "-o", "quiet"]).ok().word().to_owned();
    let me = second.http_as(Some(&token)).get("/api/v1/session").is(200).json();
    assert_eq!(me["user"], "ada");
    // A session opened at one is known at the other, and over at both when it is closed.
    let opened = first.anonymous().post("/api/v1/session", &serde_json::json!({ "token": token })).is(200);
    let cookie = opened.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let elsewhere = second.anonymous().with("cookie", &cookie);
    assert_eq!(elsewhere.get("/api/v1/session").is(200).json()["user"], "ada");
}
