//! Results of the grid in SQL, as files, and in the archive.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use tidemill_it::{Options, Server, eventually, free_port, program, skipped};

/// What the sessions call: it reads JSON from text, so that a test says in its inputs what the results are.
const FUNCTION: &str = "json:loads";

/// The input of a scenario: what two books make of it. A negative one is text that is no JSON, and fails.
fn scenario(n: i64) -> String {
    if n < 0 {
        return json!("no scenario").to_string();
    }
    json!(json!([{"book": "A", "scenario": n, "pnl": -(n as f64)}, {"book": "B", "scenario": n, "pnl": 2.5 * n as f64}]).to_string())
        .to_string()
}

const SESSIONS: &str = "/api/v1/grid/sessions";

/// A submission: `TMS1`, how many tasks, no dependencies, lengths, payloads.
fn submission(payloads: &[String]) -> Vec<u8> {
    let mut out = b"TMS1".to_vec();
    for n in [payloads.len(), 0].into_iter().chain(payloads.iter().map(String::len)) {
        out.extend(u32::try_from(n).unwrap().to_le_bytes());
    }
    out.extend(payloads.concat().as_bytes());
    out
}

fn open(server: &Server) -> String {
    let parts = json!({
        "name": "risk", "engine": "python", "function": {"module": FUNCTION}, "input": "json", "output": "json", "labels": {"desk": "rates"},
    });
    let opened = server.http().post(SESSIONS, &json!({ "session": parts })).is(201).json();
    opened["id"].as_str().unwrap().to_owned()
}

fn submit(server: &Server, id: &str, payloads: impl Iterator<Item = String>) {
    let payloads: Vec<String> = payloads.collect();
    let http = server.http();
    let sent = http.send("POST", &format!("{SESSIONS}/{id}/tasks"), "application/octet-stream", submission(&payloads));
    sent.unwrap().is(201);
}

fn close(server: &Server, id: &str) -> Value {
    let http = server.http();
    http.post(&format!("{SESSIONS}/{id}/close"), &json!({})).is(202);
    eventually(&format!("session {id} ends"), || {
        let session = http.get(&format!("{SESSIONS}/{id}")).is(200).json();
        ["succeeded", "failed", "cancelled"].iter().any(|s| session["state"] == *s).then_some(session)
    })
}

/// A server whose engines are Python; `None` without Python.
fn server(name: &str, settings: &[(&str, &str)]) -> Option<Server> {
    if program("python3").is_none() {
        skipped(name, "there is no python3");
        return None;
    }
    let variables = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Some(Server::start(Options { workers: "1..1", slots: 2, variables, ..Options::default() }))
}

fn one(server: &Server, query: &str) -> Value {
    let rows = server.sql(query);
    assert_eq!(rows.len(), 1, "{query}: {rows:?}");
    rows[0].as_object().unwrap().values().next().unwrap().clone()
}

#[test]
fn results_are_rows_while_the_session_runs_and_after() {
    let Some(server) = server("results_are_rows_while_the_session_runs_and_after", &[]) else { return };
    let (id, other) = (open(&server), open(&server));
    submit(&server, &id, (1..=500).map(scenario));
    submit(&server, &other, std::iter::once(json!("7").to_string()));
    let count = format!("SELECT count(*) AS n FROM grid.results WHERE session = '{id}'");
    eventually("all results are rows of the open session", || (one(&server, &count) == 500).then_some(()));
    assert_eq!(one(&server, &format!("SELECT open FROM grid.sessions WHERE id = '{id}'")), true);
    // The 12 worst of book A are 500 to 489, and half of the 13th: (5934 + 244) / 12.5. The fifth worst is 496.
    let risk = format!(
        "SELECT book, round(expected_shortfall(pnl, 0.975), 9) AS es, -quantile_exact(pnl, 0.01) AS var, sum(pnl) AS pnl, count(*) AS n
         FROM grid.{id} GROUP BY book ORDER BY book"
    );
    let rows = server.sql(&risk);
    assert_eq!(rows[0], json!({"book": "A", "es": 494.24, "var": 496.0, "pnl": -125_250.0, "n": 500}));
    assert_eq!((&rows[1]["book"], &rows[1]["pnl"]), (&"B".into(), &313_125.0.into()));
    // What comes later is there in the next statement, with the columns that it brings.
    submit(&server, &id, [501, -1].into_iter().map(scenario));
    let session = close(&server, &id);
    assert_eq!((&session["tasks"]["succeeded"], &session["tasks"]["failed"]), (&501.into(), &1.into()), "{session}");
    assert_eq!(one(&server, &format!("SELECT count(DISTINCT scenario) AS n FROM grid.{id}")), 501);
    let states = server.sql(&format!("SELECT state, count(*) AS n FROM grid.tasks WHERE session = '{id}' GROUP BY state ORDER BY state"));
    assert_eq!(states, [json!({"state": "failed", "n": 1}), json!({"state": "succeeded", "n": 501})]);
    let failed = server.sql(&format!("SELECT task, class, message, attempts FROM grid.tasks WHERE session = '{id}' AND state = 'failed'"));
    assert_eq!((&failed[0]["task"], &failed[0]["class"]), (&501.into(), &"error".into()));
    assert!(failed[0]["message"].as_str().unwrap().contains("Expecting value"), "{failed:?}");
    // Inputs and results together; the other session's number has a column of its own.
    let joined = format!(
        "SELECT count(*) AS n FROM grid.inputs i JOIN grid.{id} r ON r._task = i.task
         WHERE i.session = '{id}' AND r.scenario = i.task + 1 AND i.value LIKE '%scenario%'"
    );
    assert_eq!(one(&server, &joined), 1002);
    assert_eq!(one(&server, &format!("SELECT value FROM grid.{other}")), 7);
    assert_eq!(one(&server, &format!("SELECT value FROM grid.results WHERE session = '{other}'")), "7");
    let listed = server.sql("SELECT id, engine, output, labels, succeeded FROM grid.sessions ORDER BY id");
    let ids: Vec<&str> = listed.iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [id.as_str(), other.as_str()]);
    assert_eq!((&listed[0]["engine"], &listed[0]["labels"]), (&"python".into(), &"{\"desk\":\"rates\"}".into()));
    assert_eq!(one(&server, "SELECT count(*) AS n FROM batch.jobs"), 0, "sessions are no jobs for people");
    server.cli(&["sql", "SELECT * FROM grid.nosuchsession"]).exits(1).says("there is no session `nosuchsession`");
}

fn object(server: &Server, path: &str) -> Vec<u8> {
    server.http().get(&format!("/api/v1/objects/{path}")).is(200).bytes
}

#[test]
fn results_are_collected_in_the_order_of_tasks() {
    let Some(server) = server("results_are_collected_in_the_order_of_tasks", &[]) else { return };
    let id = open(&server);
    submit(&server, &id, (1..=300).map(scenario));
    close(&server, &id);
    let collect = |to: &str, more: &[&str]| {
        let args = [&["grid", "collect", id.as_str(), "--to", to, "-o", "json"], more].concat();
        server.cli(&args).ok().json()
    };
    let csv = collect("data/out/", &["--format", "csv"]);
    let path = format!("data/out/{id}-00000.csv");
    assert_eq!((&csv["rows"], &csv["files"][0]["path"]), (&600.into(), &path.as_str().into()), "{csv}");
    let text = String::from_utf8(object(&server, &path)).unwrap();
    let expected: String = (1..=300_i64)
        .flat_map(|n| {
            let task = n - 1;
            [format!("{task},0,A,-{n}.0,{n}\r\n"), format!("{task},1,B,{:?},{n}\r\n", 2.5 * n as f64)]
        })
        .collect();
    assert_eq!(text, format!("_task,_row,book,pnl,scenario\r\n{expected}"));
    let manifest: Value = serde_json::from_slice(&object(&server, csv["manifest"].as_str().unwrap())).unwrap();
    assert_eq!(manifest, csv, "the manifest says what the call said");
    // Again, to another place: the same bytes, and so the same hashes.
    let hashes = |c: &Value| c["files"].as_array().unwrap().iter().map(|f| f["sha256"].clone()).collect::<Vec<_>>();
    for format in ["parquet", "arrow", "jsonl"] {
        let (once, again) = (collect("data/once", &["--format", format]), collect("data/again", &["--format", format]));
        assert_eq!(hashes(&once), hashes(&again), "{format}");
        assert_eq!(once["files"][0]["bytes"], object(&server, once["files"][0]["path"].as_str().unwrap()).len(), "{format}");
    }
    let query = format!("SELECT book, sum(pnl) AS pnl FROM grid.{id} GROUP BY book ORDER BY book");
    let sums = collect("data/sums", &["--format", "csv", "--sql", &query]);
    let sums = object(&server, sums["files"][0]["path"].as_str().unwrap());
    assert_eq!(String::from_utf8_lossy(&sums), "book,pnl\r\nA,-45150.0\r\nB,112875.0\r\n");
    server.cli(&["grid", "collect", &id, "--to", "jobs/x"]).exits(1).says("bucket `jobs` is the system's own");
}

#[test]
fn an_archived_session_comes_back_and_runs_once_more_to_the_same_bytes() {
    let name = "an_archived_session_comes_back_and_runs_once_more_to_the_same_bytes";
    let Some(server) = server(name, &[("TIDEMILL_ARCHIVE_DELAY", "10s")]) else { return };
    let id = open(&server);
    submit(&server, &id, (1..=200).map(scenario));
    server.cli(&["grid", "archive", &id]).exits(1).says("only one that has ended can be archived");
    submit(&server, &id, (201..=300).map(scenario));
    close(&server, &id);
    let results = |id: &str| -> BTreeMap<u64, String> {
        let rows = server.sql(&format!("SELECT task, value FROM grid.results WHERE session = '{id}'"));
        rows.iter().map(|r| (r["task"].as_u64().unwrap(), r["value"].as_str().unwrap().to_owned())).collect()
    };
    let before = results(&id);
    assert_eq!(before.len(), 300);
    let archived = server.cli(&["grid", "archive", &id, "--delete", "-o", "json"]).ok().json();
    assert_eq!((&archived["state"], &archived["tasks"], &archived["records"]), (&"archived".into(), &300.into(), &300.into()));
    assert_eq!(one(&server, "SELECT count(*) AS n FROM grid.sessions"), 0);
    let select = format!("SELECT count(*) AS n FROM grid.{id}");
    server.cli(&["sql", &select]).exits(1).says("tidemill grid restore");
    let asked = server.cli(&["grid", "restore", &id, "-o", "json"]).ok().json();
    assert_eq!(asked["state"], "restoring", "it takes its time");
    server.cli(&["sql", &select]).exits(1).says("is being restored");
    eventually("the session is restored", || {
        let rows = server.sql(&format!("SELECT state FROM grid.archives WHERE session = '{id}'"));
        (rows[0]["state"] == "restored").then_some(())
    });
    assert_eq!(results(&id), before, "the results are what they were");
    assert_eq!(one(&server, &format!("SELECT sum(pnl) AS s FROM grid.{id} WHERE book = 'A'")), -45_150.0);
    let again = server.cli(&["grid", "restore", &id, "--rerun", "-o", "quiet"]).ok().word().to_owned();
    let session = eventually("it has run once more", || {
        let session = server.http().get(&format!("{SESSIONS}/{again}")).is(200).json();
        (session["state"] == "succeeded").then_some(session)
    });
    assert_eq!(session["tasks"]["succeeded"], 300);
    assert_eq!(results(&again), before, "the same function over the same inputs gives the same bytes");
    server.cli(&["grid", "archive", &id, "--remove"]).ok();
    server.cli(&["grid", "restore", &id]).exits(1).says("is not archived");
}

#[test]
fn psql_reads_the_results_of_a_session_as_rows() {
    let test = "psql_reads_the_results_of_a_session_as_rows";
    let (Some(_), Some(psql)) = (program("python3"), program("psql")) else {
        return skipped(test, "there is no python3, or no psql (Debian: apt-get install postgresql-client)");
    };
    let port = free_port().to_string();
    let args = vec!["--sql-listen".to_owned(), format!("127.0.0.1:{port}")];
    let server = Server::start(Options { workers: "1..1", slots: 2, args, company: false, ..Options::default() });
    let id = open(&server);
    submit(&server, &id, (1..=100).map(scenario));
    let ask = |command: &str| {
        let mut call = Command::new(&psql);
        call.args(["-X", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port, "-U", "tidemill", "-d", "tidemill"]);
        let done = call.args(["-c", command]).env("PGPASSWORD", server.token()).output().unwrap();
        let said = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        if done.status.success() { said.0.trim().to_owned() } else { said.1 }
    };
    // While it runs, and after.
    let count = format!("SELECT count(*) FROM grid.results WHERE session = '{id}'");
    eventually("all results are rows", || (ask(&count) == "100").then_some(()));
    let risk = format!(
        "SELECT book, -quantile_exact(pnl, 0.01)::int AS var, expected_shortfall(pnl, 0.975)::float8 AS es FROM grid.{id} GROUP BY book ORDER BY book"
    );
    // The two worst of book A are 100 and 99, and half of 98: 248 / 2.5.
    assert_eq!(ask(&risk).lines().next(), Some("A|100|99.2"));
    close(&server, &id);
    assert_eq!(ask(&format!("SELECT state, succeeded FROM grid.sessions WHERE id = '{id}'")), "succeeded|100");
    let csv = ask(&format!(
        "\\copy (SELECT scenario, pnl FROM grid.{id} WHERE book = 'B' ORDER BY scenario LIMIT 2) TO STDOUT WITH (FORMAT csv, HEADER)"
    ));
    assert_eq!(csv, "scenario,pnl\n1,2.5\n2,5");
    let tables = ask("\\dt grid.*");
    assert!(["grid|sessions|table|", "grid|results|table|", "grid|tasks|table|"].iter().all(|t| tables.contains(t)), "{tables}");
    assert!(
        ask("\\d grid.results").contains("task|bigint|||") || ask("\\d grid.results").contains("task|numeric"),
        "{}",
        ask("\\d grid.results")
    );
    assert!(ask("SELECT 1 FROM grid.nosuchsession").contains("there is no session `nosuchsession`"));
    assert!(ask(&format!("DELETE FROM grid.{id}")).contains("only reads"));
}
