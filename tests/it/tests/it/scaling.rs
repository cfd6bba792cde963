//! The fleet grows with the work and goes when there is none; a policy can be tried without a server.

use std::fs;

use serde_json::Value;
use tidemill_it::{Call, Options, Server, eventually};

fn group(server: &Server) -> Value {
    server.http().get("/api/v1/fleet/groups").is(200).json()["groups"][0].clone()
}

#[test]
fn the_fleet_grows_from_nothing_with_the_work_and_goes_back_to_nothing() {
    let args = ["--set", "fleet.shrink-cooldown=2s", "--set", "fleet.target=1s"].map(str::to_owned).to_vec();
    let server = Server::start(Options { workers: "0..3", slots: 1, args, company: false, ..Options::default() });
    assert!(server.worker_processes().is_empty(), "nobody works before there is work");
    let id = server.detach(&["--array", "1-40", "--", "sleep", "0.5"]);
    eventually("all three workers have come", || (server.worker_processes().len() == 3).then_some(()));
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["attempts"]), (Some("succeeded"), &40.into()), "shrinking interrupted nobody: {job}");
    let helpers = server.sql(&format!("SELECT count(DISTINCT worker) AS n FROM batch.tasks WHERE job = '{id}'"))[0]["n"].as_u64();
    assert!(helpers >= Some(2), "{helpers:?} workers took part");
    eventually("all workers have gone", || server.worker_processes().is_empty().then_some(()));
    eventually("the group says so", || Some(group(&server)).filter(|g| g["members"] == 0 && g["desired"] == 0));
    let history = group(&server)["history"].as_array().unwrap().clone();
    assert_eq!(history.iter().filter_map(|p| p["members"].as_u64()).max(), Some(3), "the chart shows it: {history:?}");
    // And from nothing once more.
    server.cli(&["batch", "run", "--", "true"]).ok();
}

#[test]
fn every_class_has_a_group_that_scales_by_itself() {
    let data = tempfile::tempdir().unwrap();
    let group = "[[fleet.group]]\nclass = \"large\"\nworkers = \"0..2\"\nslots = 1\noffers = { gpu = 1 }\n";
    fs::write(data.path().join("tidemill.toml"), group).unwrap();
    let args = ["--set", "fleet.shrink-cooldown=1s", "--set", "fleet.target=1s"].map(str::to_owned).to_vec();
    let mut server = Server::start(Options {
        workers: "0..1",
        slots: 1,
        args,
        data: Some(data.path().to_owned()),
        company: false,
        ..Options::default()
    });
    let job = "name = \"large\"\nclass = \"large\"\n[[stage]]\narray = \"1-8\"\ncommand = [\"sleep\", \"0.5\"]\nresources = { gpu = 1 }\n";
    let id = server.submit(job);
    eventually("two of the class have come", || (server.workers().iter().filter(|w| w["class"] == "large").count() == 2).then_some(()));
    assert!(server.workers().iter().all(|w| w["class"] == "large"), "nobody of another class: {:?}", server.workers());
    assert_eq!(server.ended(&id)["state"], "succeeded");
    eventually("they have gone", || server.worker_processes().is_empty().then_some(()));

    // A group that is configured no more is let go of.
    fs::write(data.path().join("tidemill.toml"), "").unwrap();
    server.terminate();
    server.restart();
    let groups = server.http().get("/api/v1/fleet/groups").is(200).json()["groups"].as_array().unwrap().clone();
    let max = |class: &str| groups.iter().find(|g| g["group"] == class || g["name"] == class).map(|g| g["max"].clone());
    assert_eq!((max("large"), max("default")), (Some(0.into()), Some(1.into())), "{groups:?}");
}

#[test]
fn the_least_number_of_workers_stays_and_a_dead_one_is_replaced() {
    let args = ["--set", "fleet.shrink-cooldown=1s"].map(str::to_owned).to_vec();
    let server = Server::start(Options { workers: "2..3", slots: 1, args, company: false, ..Options::default() });
    let first = eventually("two workers are there without work", || Some(server.worker_processes()).filter(|w| w.len() == 2));
    first[0].signal(libc::SIGKILL);
    let second = eventually("the dead one is replaced", || {
        Some(server.worker_processes()).filter(|w| w.len() == 2 && w.contains(&first[1]) && !w.contains(&first[0]))
    });
    server.cli(&["batch", "run", "--array", "1-6", "--", "true"]).ok();
    eventually("two stay", || Some(server.worker_processes()).filter(|w| w.len() == 2 && w.contains(&second[0])));
}

#[test]
fn a_policy_is_tried_against_an_invented_and_a_recorded_load() {
    let folder = tempfile::tempdir().unwrap();
    let simulate = |args: &[&str]| {
        let all: Vec<&str> = ["fleet", "simulate"].into_iter().chain(args.iter().copied()).collect();
        Call::new(&all).within(folder.path()).run().ok()
    };
    for load in ["steady", "burst", "working-day", "month-end"] {
        let done = simulate(&["--load", load, "-o", "json"]).json();
        assert_eq!((&done["finished"], &done["load"]), (&true.into(), &load.into()), "{done}");
        assert!(done["cost"].as_f64().unwrap() > 0.0 && done["completion_s"].as_f64().unwrap() > 0.0, "{done}");
    }
    let chart = simulate(&["--load", "month-end"]).stdout;
    for word in ["completion", "worker hours", "cost", "workers |", "tasks   |"] {
        assert!(chart.contains(word), "{word} in {chart}");
    }
    // 600 tasks of 10 s at once, on 5 workers of 2 slots that are there at once: 600 s of work for each slot.
    fs::write(folder.path().join("load.csv"), "seconds,tasks,seconds_per_task\n0,600,10\n").unwrap();
    let at = |max: &str| {
        let args = ["--load", "load.csv", "--min", "0", "--max", max, "--slots", "2", "--boot", "0s", "--price", "3.6", "-o", "json"];
        simulate(&args).json()
    };
    let (five, one) = (at("5"), at("1"));
    let took = |done: &Value| done["completion_s"].as_f64().unwrap();
    assert!((600.0..720.0).contains(&took(&five)), "{} s", took(&five));
    assert!((3000.0..3200.0).contains(&took(&one)), "{} s", took(&one));
    assert_eq!((&five["peak_workers"], &one["peak_workers"]), (&5.into(), &1.into()));
    // 6,000 s of work are 3,000 s of a worker with two slots, at a thousandth a second.
    assert!(five["cost"].as_f64().unwrap() >= 3.0 && five["cost"].as_f64().unwrap() < 4.5, "{}", five["cost"]);
    Call::new(&["fleet", "simulate", "--load", "nothing-there.csv"]).within(folder.path()).run().exits(2).says("nothing-there.csv");
}
