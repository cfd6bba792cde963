//! Jobs that come again.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidemill_it::{Options, Server, pause};

/// The jobs that ticks have made of this one.
fn copies(server: &Server, parent: &str) -> Vec<Value> {
    let list = server.http().get("/api/v1/batch/jobs?limit=100").is(200).json();
    let of_parent = |job: &Value| server.job(job["id"].as_str().unwrap())["cron_parent"] == parent;
    list["jobs"].as_array().unwrap().iter().filter(|job| of_parent(job)).cloned().collect()
}

#[test]
fn a_job_on_a_cron_line_runs_once_a_tick_also_over_a_crash() {
    let mut server = Server::start(Options::default());
    let job =
        "name = \"each minute\"\ncron = \"* * * * *\"\ntimezone = \"Europe/Berlin\"\n[[stage]]\narray = \"1-2\"\ncommand = [\"true\"]\n";
    let parent = server.submit(job);
    let why = server.cli(&["batch", "explain", &parent, "-o", "json"]).ok().json();
    assert!(!why["because"].as_array().unwrap().is_empty(), "it says when it comes: {why}");
    assert!(copies(&server, &parent).is_empty(), "nothing runs before the first tick");
    // The manager dies and comes back while it waits.
    server.kill9();
    server.restart();
    let start = Instant::now();
    let first = loop {
        let made = copies(&server, &parent);
        if let Some(job) = made.first() {
            assert_eq!(made.len(), 1, "one tick, one job: {made:?}");
            break job.clone();
        }
        assert!(start.elapsed() < Duration::from_secs(120), "no tick in two minutes");
        pause(Duration::from_millis(500));
    };
    let ended = server.ended(first["id"].as_str().unwrap());
    assert_eq!((ended["state"].as_str(), &ended["tasks"]["succeeded"]), (Some("succeeded"), &2.into()), "{ended}");
    server.cli(&["batch", "cancel", &parent]).ok();
    assert_eq!(server.ended(&parent)["state"], "cancelled");
    server.call(&["batch", "submit", "-"]).stdin(job.replace("* * * * *", "* * * *")).run().exits(2).says("fields");
    server.call(&["batch", "submit", "-"]).stdin(job.replace("Berlin", "Berlyn")).run().exits(2).says("Berlyn");
}
