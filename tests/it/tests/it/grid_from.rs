//! `tidemill grid run` over rows: of objects, of files that it uploads, of a database.

use std::fs;

use serde_json::{Value, json};
use tidemill_it::{Options, Server, program, skipped};

/// The values of results that were written as JSON lines, in the order of their tasks.
fn values(text: &str) -> Vec<u64> {
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].as_u64().unwrap()).collect()
}

#[test]
fn rows_of_objects_and_of_files_become_tasks() {
    if program("python3").is_none() {
        return skipped("rows_of_objects_and_of_files_become_tasks", "there is no python3");
    }
    let server = Server::start(Options::default());
    let csv = |rows: std::ops::Range<u64>| format!("id,desk\n{}", rows.map(|n| format!("{n},desk{}\n", n % 3)).collect::<String>());
    server.http().put("/api/v1/objects/data/trades/a.csv", csv(0..7)).is(201);
    server.http().put("/api/v1/objects/data/trades/b.csv", csv(7..10)).is(201);
    fs::create_dir_all(server.folder().join("trades")).unwrap();
    fs::write(server.folder().join("trades/one.csv"), csv(0..7)).unwrap();
    fs::write(server.folder().join("trades/two.csv"), csv(7..10)).unwrap();

    let run = ["grid", "run", "--module", "builtins:len", "--results", "-", "--from"];
    let desks = server.cli(&[&run[..], &["s3://data/trades/*.csv", "--group-by", "desk"]].concat()).ok().says("3 tasks: 3 succeeded");
    assert_eq!(values(&desks.stdout), [4, 3, 3], "a task for each desk, in their order");
    // Rows go over the borders of files, which are taken in the order of their names.
    let parts = server.cli(&[&run[..], &["trades/*.csv", "--rows", "4", "--columns", "id"]].concat()).ok().says("uploaded");
    assert_eq!(values(&parts.stdout), [4, 4, 2]);
    let detached = ["grid", "run", "--module", "builtins:len", "--from", "s3://data/trades/a.csv", "--rows", "2", "--detach", "-o", "json"];
    let opened = server.cli(&detached).ok().json();
    assert_eq!(opened["tasks"], 4);
    let watched = server.cli(&["grid", "watch", opened["id"].as_str().unwrap(), "-o", "json"]).ok().json();
    assert_eq!(watched["tasks"]["succeeded"], 4);
}

#[test]
fn an_upload_goes_with_the_last_session_whose_tasks_were_made_from_it() {
    if program("python3").is_none() {
        return skipped("an_upload_goes_with_the_last_session_whose_tasks_were_made_from_it", "there is no python3");
    }
    let server = Server::start(Options::default());
    let upload = server.http().post("/api/v1/uploads", &json!({})).json()["prefix"].as_str().unwrap().trim_end_matches('/').to_owned();
    let object = format!("/api/v1/objects/{upload}/trades.csv");
    server.http().put(&object, "id\n1\n2\n").is(201);
    let from = format!("s3://{upload}/*.csv");
    let [one, other] = [1, 2].map(|rows: u64| {
        let run = ["grid", "run", "--module", "builtins:len", "--from", &from, "--rows", &rows.to_string(), "--detach", "-o", "json"];
        let id = server.cli(&run).ok().json()["id"].as_str().unwrap().to_owned();
        server.cli(&["grid", "watch", &id]).ok();
        id
    });
    server.cli(&["grid", "delete", &one]).ok();
    server.http().get(&object).is(200);
    server.cli(&["grid", "delete", &other]).ok();
    server.http().get(&object).is(404);
}

#[test]
fn what_is_wrong_with_rows_is_said_and_leaves_no_session_open() {
    let server = Server::start(Options { workers: "0..1", ..Options::default() });
    server.http().put("/api/v1/objects/data/a.csv", "id\n1\n").is(201);
    let run = |words: &[&str]| server.cli(&[&["grid", "run", "--module", "builtins:len"][..], words].concat());
    run(&["--from", "s3://data/none/*.csv"]).exits(1).says("names no object");
    run(&["--from", "s3://data/a.csv", "--columns", "book"]).exits(2).says("no column `book`");
    run(&["--source", "nowhere", "--query", "SELECT 1"]).exits(1).says("no source `nowhere`");
    run(&["--from", "nothing/*.csv"]).exits(2).says("matches no file");
    run(&["--source", "nowhere"]).exits(2).says("--source nowhere needs --query");
    run(&["--range", "1-2", "--rows", "7"]).exits(2).says("--rows");
    let states = server.cli(&["grid", "list", "-o", "json"]).ok().json();
    let sessions = states["sessions"].as_array().unwrap();
    assert!(sessions.len() == 3 && sessions.iter().all(|s| s["state"] == "cancelled" || s["state"] == "cancelling"), "{states}");
}
