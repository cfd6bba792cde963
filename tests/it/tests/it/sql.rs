//! What is known can be asked in SQL, while a job runs and afterwards.

use serde_json::Value;
use tidemill_it::{Options, Server};

fn one(server: &Server, query: &str, column: &str) -> u64 {
    server.sql(query)[0][column].as_u64().unwrap_or_else(|| panic!("{query}"))
}

#[test]
fn counts_agree_with_the_job_while_it_runs_and_after() {
    let server = Server::start(Options { workers: "1..1", slots: 2, ..Options::default() });
    let id = server.detach(&[
        "--name",
        "counted",
        "--array",
        "1-60",
        "--retries",
        "1",
        "--",
        "sh",
        "-c",
        "sleep 0.1; test $1 != 7",
        "sh",
        "{index}",
    ]);
    server.until(&id, "succeeded", 5);
    for _ in 0..5 {
        // Counts only grow, so that an answer lies between what was shown before it and after it.
        let before = server.job(&id)["tasks"]["succeeded"].as_u64().unwrap();
        let stage = one(&server, &format!("SELECT succeeded FROM batch.stages WHERE job = '{id}'"), "succeeded");
        let between = server.job(&id)["tasks"]["succeeded"].as_u64().unwrap();
        let rows = one(&server, &format!("SELECT count(*) AS n FROM batch.tasks WHERE job = '{id}' AND class = 'ok'"), "n");
        let after = server.job(&id)["tasks"]["succeeded"].as_u64().unwrap();
        assert!((before..=between).contains(&stage), "{before} {stage} {between}");
        assert!(rows <= 60 && rows + 30 >= between, "{between} {rows} {after}");
    }
    let job = server.ended(&id);
    assert_eq!(job["state"], "failed");
    assert_eq!((&job["tasks"]["succeeded"], &job["tasks"]["failed"], &job["attempts"]), (&59.into(), &1.into(), &61.into()));
    assert_eq!(one(&server, &format!("SELECT count(*) AS n FROM batch.tasks WHERE job = '{id}'"), "n"), 61);
    assert_eq!(one(&server, &format!("SELECT count(DISTINCT task) AS n FROM batch.tasks WHERE job = '{id}'"), "n"), 60);
    assert_eq!(one(&server, &format!("SELECT count(*) AS n FROM batch.tasks WHERE job = '{id}' AND class <> 'ok'"), "n"), 2);
    assert_eq!(one(&server, &format!("SELECT attempts AS n FROM batch.stages WHERE job = '{id}'"), "n"), 61);
    let jobs = server.sql(&format!("SELECT name, state, \"user\" FROM batch.jobs WHERE id = '{id}'"));
    assert_eq!((&jobs[0]["name"], &jobs[0]["state"], &jobs[0]["user"]), (&"counted".into(), &"failed".into(), &"admin".into()));
    let joined = format!(
        "SELECT j.name, count(*) AS n, sum(t.run_us) AS busy FROM batch.jobs j JOIN batch.tasks t ON t.job = j.id WHERE j.id = '{id}' GROUP BY j.name"
    );
    let row = &server.sql(&joined)[0];
    assert_eq!(row["n"], 61);
    assert!(row["busy"].as_u64().unwrap() >= 61 * 100_000, "each attempt slept for a tenth of a second: {row}");
    let busy = server.sql(&format!("SELECT run_us FROM batch.stages WHERE job = '{id}'"));
    assert_eq!(busy[0]["run_us"], row["busy"], "sums of rows are the sums of the stage");
}

#[test]
fn answers_come_as_json_as_csv_and_as_a_table() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let query = "SELECT 1 AS n, 'a,b \"c\"' AS word, CAST(NULL AS VARCHAR) AS nothing, 2.5 AS x UNION ALL SELECT 2, 'line\nend', 'y', 3.0 ORDER BY n";
    let json = server.cli(&["sql", query, "--output", "json"]).ok().json();
    let names: Vec<&str> = json["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["n", "word", "nothing", "x"]);
    assert_eq!(json["rows"][0]["word"], "a,b \"c\"");
    assert_eq!(json["rows"][0]["nothing"], Value::Null);
    assert_eq!((&json["rows"][1]["n"], &json["rows"][1]["word"]), (&2.into(), &"line\nend".into()));
    let csv = server.cli(&["sql", query, "--output", "csv"]).ok().stdout.replace("\r\n", "\n");
    assert_eq!(csv, "n,word,nothing,x\n1,\"a,b \"\"c\"\"\",,2.5\n2,\"line\nend\",y,3.0\n");
    let table = server.cli(&["sql", "SELECT 7 AS seven"]).ok().stdout;
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["seven", "7"]);
    assert_eq!(server.call(&["sql", "-", "-o", "quiet"]).stdin("SELECT 8 AS n").run().ok().word(), "8");
    server.cli(&["sql", "SELECT nothing FROM batch.jobs"]).exits(2).says("nothing");
    server.cli(&["sql", "SELECT * FROM batch.nowhere"]).says("nowhere").exits(2);
}

#[test]
fn what_was_counted_is_still_counted_after_a_crash() {
    let mut server = Server::start(Options::default());
    let job = server.cli(&["batch", "run", "--array", "1-25", "-o", "json", "--", "true"]).ok().json();
    let id = job["id"].as_str().unwrap().to_owned();
    let count = format!("SELECT count(*) AS n FROM batch.tasks WHERE job = '{id}'");
    assert_eq!(one(&server, &count, "n"), 25);
    server.kill9();
    server.restart();
    assert_eq!(one(&server, &count, "n"), 25, "statistics survive a crash");
    assert_eq!(server.job(&id)["tasks"]["succeeded"], 25);
    let workers = server.sql("SELECT id, slots FROM fleet.workers");
    assert!(workers.iter().all(|w| w["slots"] == 2), "{workers:?}");
}
