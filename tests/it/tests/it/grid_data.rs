//! Packages that sessions pin, and tasks made from data where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_it::{Options, Server, Worker, eventually, on_engines, pause, program, skipped};

fn no_python(test: &str) -> bool {
    let missing = program("python3").is_none();
    if missing {
        skipped(test, "there is no python3");
    }
    missing
}

fn write(folder: &Path, path: &str, text: impl AsRef<[u8]>) -> String {
    let file = folder.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    file.to_string_lossy().into_owned()
}

/// Opens a session and returns its id.
fn open(server: &Server, session: Value) -> String {
    let opened = server.http().post("/api/v1/grid/sessions", &json!({ "session": session })).is(201).json();
    opened["id"].as_str().unwrap().to_owned()
}

/// Tasks with these payloads, in the bytes that `docs/reference/grid-streams.md` describes.
fn submit(server: &Server, id: &str, payloads: &[Value]) {
    let payloads: Vec<Vec<u8>> = payloads.iter().map(|p| p.to_string().into_bytes()).collect();
    let mut body = b"TMS1".to_vec();
    body.extend((payloads.len() as u32).to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    payloads.iter().for_each(|p| body.extend((p.len() as u32).to_le_bytes()));
    payloads.iter().for_each(|p| body.extend(p));
    let path = format!("/api/v1/grid/sessions/{id}/tasks");
    server.http().send("POST", &path, "application/octet-stream", body).unwrap().is(201);
}

fn close(server: &Server, id: &str) {
    server.http().post(&format!("/api/v1/grid/sessions/{id}/close"), &json!({})).is(202);
}

fn detail(server: &Server, id: &str) -> Value {
    server.http().get(&format!("/api/v1/grid/sessions/{id}")).is(200).json()
}

fn until(server: &Server, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("session {id} {what}"), || Some(detail(server, id)).filter(|s| holds(s)))
}

fn ended(server: &Server, id: &str) -> Value {
    until(server, id, "ends", |s| ["succeeded", "failed", "cancelled"].contains(&s["state"].as_str().unwrap()))
}

/// The results by task, and who made them.
fn results(server: &Server, id: &str) -> BTreeMap<u64, Value> {
    let listed = server.cli(&["grid", "results", id, "-o", "json"]).ok().json();
    let rows = listed["results"].as_array().unwrap();
    rows.iter().map(|r| (r["task"].as_u64().unwrap(), r["value"].clone())).collect()
}

/// A package with a wheel, which Python itself makes.
fn wheel(folder: &Path, text: &str) -> String {
    let file = folder.join("holidays-1-py3-none-any.whl");
    let make = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w')\nz.writestr('holidays.py', sys.argv[2])\nz.close()";
    fs::create_dir_all(folder).unwrap();
    let done = std::process::Command::new("python3").args(["-c", make]).arg(&file).arg(text).status().unwrap();
    assert!(done.success());
    file.to_string_lossy().into_owned()
}

/// A module that reads the calendar of whatever version the engine was given.
const READER: &str = "import time\nfrom tidemill.engine._surroundings import surroundings\n\
def days(n):\n    time.sleep(0.01)\n    version, folder = surroundings.packages['calendars']\n    return [version, (folder / 'eu' / 'days.csv').read_text().strip()]\n";

#[test]
fn a_session_keeps_its_calendar_when_a_later_one_is_published() {
    if no_python("a_session_keeps_its_calendar_when_a_later_one_is_published") {
        return;
    }
    let server = Server::start(Options { workers: "1..1", ..Options::default() });
    let folder = server.folder().join("files");
    let reader = wheel(&folder, READER);
    server.cli(&["grid", "package", "push", "reader", "1", &reader]).ok();
    write(&folder, "one/eu/days.csv", "2026-01-01");
    write(&folder, "two/eu/days.csv", "2026-01-01 2026-12-24");
    let (one, two) = (folder.join("one").display().to_string(), folder.join("two").display().to_string());
    server.cli(&["grid", "package", "push", "calendars", "v1", &one]).ok();
    let session =
        |packages: Value| json!({"function": {"module": "holidays:days"}, "input": "json", "output": "json", "packages": packages});
    let pinned = open(&server, session(json!(["reader", "calendars"])));
    let numbers: Vec<Value> = (0..200).map(|n| json!(n)).collect();
    submit(&server, &pinned, &numbers);
    until(&server, &pinned, "is at work", |s| s["tasks"]["succeeded"].as_u64().unwrap() > 0);
    // The holiday file's second version, in the middle of the session; then a worker that has neither.
    server.cli(&["grid", "package", "push", "calendars", "v2", &two]).ok();
    let second = Worker::start(&server, "second", &["--slots", "2"]);
    submit(&server, &pinned, &numbers);
    let newest = open(&server, session(json!(["reader@1", "calendars"])));
    submit(&server, &newest, &numbers[..20]);
    close(&server, &newest);
    server.cli(&["grid", "package", "delete", "calendars@v1"]).says("pinned by session").exits(1);
    close(&server, &pinned);
    assert_eq!(ended(&server, &pinned)["tasks"]["succeeded"], 400);
    assert_eq!(ended(&server, &newest)["tasks"]["succeeded"], 20);
    let found: BTreeSet<String> = results(&server, &pinned).values().map(Value::to_string).collect();
    assert_eq!(found, [json!(["v1", "2026-01-01"]).to_string()].into());
    let found: BTreeSet<String> = results(&server, &newest).values().map(Value::to_string).collect();
    assert_eq!(found, [json!(["v2", "2026-01-01 2026-12-24"]).to_string()].into());
    // Both workers have it, each once, and the results say which version made them.
    let cached = |scratch: &Path| {
        let folders = fs::read_dir(scratch.join("packages")).into_iter().flatten();
        folders.filter(|f| f.as_ref().unwrap().file_name().len() == 64).count()
    };
    assert!(cached(&server.folder().join("outside/second/second")) >= 2, "the second worker took part");
    let made = server.sql(&format!("SELECT DISTINCT made_by FROM grid.results WHERE session = '{pinned}'"));
    assert!(made.iter().all(|row| row["made_by"].as_str().unwrap().contains("calendars v1")), "{made:?}");
    drop(second);
    // Nobody needs it any more.
    server.cli(&["grid", "package", "delete", "calendars@v1"]).ok();
    let gone = server.http().post("/api/v1/grid/sessions", &json!({ "session": session(json!(["calendars@v1"])) })).is(404);
    assert!(gone.text().contains("there are v2"), "{}", gone.text());
}

#[test]
fn a_version_never_changes_and_comes_back_as_it_was() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let folder = server.folder().join("files");
    write(&folder, "lib/a/x.csv", "one");
    write(&folder, "lib/empty", "");
    let run = write(&folder, "lib/bin/run", "#!/bin/sh\n");
    fs::set_permissions(run, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let lib = folder.join("lib").display().to_string();
    let push = ["grid", "package", "push", "lib", "1", &lib, "--engine", "bin/run", "--engine-arg", "--fast", "-o", "json"];
    let first = server.cli(&push).ok().json();
    let again = server.cli(&push).ok().json();
    assert_eq!((&first["existing"], &again["existing"], &first["digest"]), (&json!(false), &json!(true), &again["digest"]));
    write(&folder, "lib/a/x.csv", "other");
    server.cli(&push).says("a version never changes").exits(1);
    let target = server.folder().join("back");
    server.cli(&["grid", "package", "pull", "lib", &target.display().to_string()]).ok();
    assert_eq!(fs::read_to_string(target.join("a/x.csv")).unwrap(), "one");
    assert_eq!(fs::read(target.join("empty")).unwrap(), b"");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(target.join("bin/run")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(server.cli(&["grid", "package", "list", "-o", "quiet"]).ok().stdout.trim(), "lib@1");
    let shown = server.cli(&["grid", "package", "show", "lib@1", "-o", "json"]).ok().json();
    assert_eq!((&shown["program"]["args"], &shown["files"]), (&json!(["--fast"]), &json!(3)));
    // Bytes that are not what they are called, and the bucket itself, are refused.
    let http = server.http();
    http.put(&format!("/api/v1/grid/packages/blobs/{}", "0".repeat(64)), "x").is(400);
    http.put("/api/v1/objects/packages/lib/1.json", "{}").is(403);
    let manifest = json!({"name": "evil", "version": "1", "files": [{"path": "../x", "size": 1, "sha256": "0".repeat(64)}]});
    http.post("/api/v1/grid/packages", &manifest).is(400);
}

#[test]
fn a_worker_that_is_killed_while_it_downloads_begins_again() {
    if no_python("a_worker_that_is_killed_while_it_downloads_begins_again") {
        return;
    }
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let folder = server.folder().join("files");
    let reader = wheel(&folder, READER);
    server.cli(&["grid", "package", "push", "reader", "1", &reader]).ok();
    write(&folder, "big/eu/days.csv", "2026-01-01");
    // Long enough to be met in the middle; a database takes longer over it.
    let size = if on_engines() { 6 << 20 } else { 24 << 20 };
    for n in 0..8_u8 {
        write(&folder, &format!("big/curves/{n}.bin"), vec![n; size]);
    }
    server.cli(&["grid", "package", "push", "calendars", "1", &folder.join("big").display().to_string()]).ok();
    let id = open(
        &server,
        json!({"function": {"module": "holidays:days"}, "input": "json", "output": "json", "packages": ["reader", "calendars"]}),
    );
    submit(&server, &id, &[json!(1), json!(2)]);
    let worker = Worker::start(&server, "first", &["--slots", "1"]);
    let packages = server.folder().join("outside/first/first/packages");
    eventually("the download has begun", || {
        let mut drafts = fs::read_dir(&packages).ok()?.filter_map(Result::ok);
        drafts.find(|d| d.file_name().to_string_lossy().starts_with("new-") && d.path().join("files/curves/0.bin").exists())
    });
    worker.process.signal(libc::SIGKILL);
    drop(worker);
    let worker = Worker::start(&server, "first", &["--slots", "1"]);
    close(&server, &id);
    assert_eq!(ended(&server, &id)["tasks"]["succeeded"], 2);
    let drafts = fs::read_dir(&packages).unwrap().filter(|d| d.as_ref().unwrap().file_name().to_string_lossy().starts_with("new-"));
    assert_eq!(drafts.count(), 0);
    drop(worker);
    // A file that was damaged while nobody looked is fetched again.
    let found = fs::read_dir(&packages).unwrap().map(|d| d.unwrap().path().join("files/curves/3.bin")).find(|f| f.exists()).unwrap();
    fs::set_permissions(&found, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&found, b"damaged").unwrap();
    let worker = Worker::start(&server, "first", &["--slots", "1"]);
    let id = open(
        &server,
        json!({"function": {"module": "holidays:days"}, "input": "json", "output": "json", "packages": ["reader", "calendars"]}),
    );
    submit(&server, &id, &[json!(1)]);
    close(&server, &id);
    assert_eq!(ended(&server, &id)["tasks"]["succeeded"], 1);
    assert_eq!(fs::read(&found).unwrap(), vec![3; size]);
    assert!(worker.log().contains("damaged"), "it is said");
}

#[test]
fn tasks_are_made_from_objects_and_nothing_twice() {
    if no_python("tasks_are_made_from_objects_and_nothing_twice") {
        return;
    }
    let mut server = Server::start(Options { workers: "1..1", ..Options::default() });
    let line = |n: u64| format!("{n},desk{},{}.5\n", n % 7, n);
    let csv = |rows: std::ops::Range<u64>| format!("id,desk,price\n{}", rows.map(line).collect::<String>());
    let http = server.http();
    http.put("/api/v1/objects/data/trades/a.csv", csv(0..30_000)).is(201);
    http.put("/api/v1/objects/data/trades/b.csv", csv(30_000..50_007)).is(201);
    let session = || json!({"function": {"module": "builtins:len"}, "input": "json", "output": "json"});
    let id = open(&server, session());
    let path = format!("/api/v1/grid/sessions/{id}/tasks-from");
    let request = json!({"objects": ["data/trades/*.csv"], "rows": 2, "columns": ["price", "id"]});
    // The server is killed in the middle; the same call goes on where it was.
    let url = server.url().to_owned();
    let (token, body) = (server.token(), request.to_string().into_bytes());
    let call = std::thread::spawn({
        let path = path.clone();
        move || tidemill_it::Http::new(&url, Some(&token), None).send("POST", &path, "application/json", body)
    });
    until(&server, &id, "has some tasks", |s| s["tasks"]["total"].as_u64().unwrap() > 0);
    server.kill9();
    drop(call.join().unwrap());
    pause(Duration::from_millis(100));
    server.restart();
    let http = server.http();
    let made = http.post(&path, &request);
    let made = if made.status == 200 { made } else { made.is(201) }.json();
    assert_eq!(made["count"], 25_004);
    let again = http.post(&path, &request).is(200).json();
    assert_eq!((&again["existing"], &again["count"]), (&json!(25_004), &json!(25_004)));
    close(&server, &id);
    let end = ended(&server, &id);
    assert_eq!((&end["tasks"]["total"], &end["tasks"]["succeeded"]), (&json!(25_004), &json!(25_004)));
    let found = results(&server, &id);
    let rows: u64 = found.values().map(|v| v.as_u64().unwrap()).sum();
    assert_eq!(rows, 50_007, "every row is in one task");

    // A task for each desk, and what is wrong is said.
    let id = open(&server, session());
    let path = format!("/api/v1/grid/sessions/{id}/tasks-from");
    http.post(&path, &json!({"objects": ["data/trades/*.csv"], "group_by": "desk"})).is(201);
    close(&server, &id);
    ended(&server, &id);
    let want: Vec<u64> = (0..7).map(|d| (0..50_007_u64).filter(|n| n % 7 == d).count() as u64).collect();
    let found: Vec<u64> = results(&server, &id).values().map(|v| v.as_u64().unwrap()).collect();
    assert_eq!(found, want);
    let id = open(&server, session());
    let path = format!("/api/v1/grid/sessions/{id}/tasks-from");
    for (request, status, word) in [
        (json!({"objects": ["data/none/*.csv"]}), 404, "names no object"),
        (json!({"objects": ["system/*"]}), 403, "system"),
        (json!({"objects": ["data/trades/a.csv"], "rows": 0}), 400, "`rows`"),
        (json!({"objects": ["data/trades/a.csv"], "columns": ["book"]}), 400, "no column `book`"),
        (json!({"source": "nowhere", "query": "SELECT 1"}), 404, "no source `nowhere`"),
        (json!({}), 400, "nothing to make tasks from"),
    ] {
        let answer = http.post(&path, &request).is(status);
        assert!(answer.text().contains(word), "{}", answer.text());
    }
    assert_eq!(detail(&server, &id)["tasks"]["total"], 0);
}

#[test]
fn a_worker_without_python_says_so() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let _worker = Worker::start(&server, "bare", &["--slots", "1", "--python", "/nowhere/python3"]);
    let id = open(&server, json!({"function": {"module": "builtins:len"}, "input": "json", "output": "json"}));
    submit(&server, &id, &[json!([1])]);
    close(&server, &id);
    assert_eq!(ended(&server, &id)["tasks"]["failed"], 1);
    let explained = server.cli(&["grid", "explain", &id]).ok();
    assert!(explained.stdout.contains("`/nowhere/python3`"), "{explained}");
}

#[test]
fn the_environment_is_made_from_wheels_without_a_network() {
    let test = "the_environment_is_made_from_wheels_without_a_network";
    if no_python(test) {
        return;
    }
    let venv = std::process::Command::new("python3").args(["-c", "import venv, ensurepip"]).output().unwrap();
    if !venv.status.success() {
        return skipped(test, "python3 lacks venv or ensurepip");
    }
    let mut server = Server::start(Options { workers: "0..1", company: false, ..Options::default() });
    let wheels = server.folder().join("wheels");
    fs::create_dir_all(&wheels).unwrap();
    let make = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1] + '/quantlet-1.0-py3-none-any.whl', 'w')\n\
                z.writestr('quantlet.py', 'def rate(n): return n * 7')\n\
                z.writestr('quantlet-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: quantlet\\nVersion: 1.0\\n')\n\
                z.writestr('quantlet-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
                z.writestr('quantlet-1.0.dist-info/RECORD', '')\nz.close()";
    assert!(std::process::Command::new("python3").args(["-c", make]).arg(&wheels).status().unwrap().success());
    let requirements = write(server.folder(), "requirements.txt", "quantlet==1.0\n");
    let wheels = wheels.display().to_string();
    let missing = write(server.folder(), "missing.txt", "nosuchquant==9\n");
    server.cli(&["grid", "python", "--requirements", &missing, "--wheels", &wheels]).says("nosuchquant").exits(2);
    assert!(!server.data().join("python").exists(), "nothing is left of what failed");
    let made = server.cli(&["grid", "python", "--requirements", &requirements, "--wheels", &wheels, "-o", "json"]).ok().json();
    assert!(made["python"].as_str().unwrap().ends_with("/python/bin/python3"), "{made}");
    server.terminate();
    server.restart();
    let id = open(&server, json!({"function": {"module": "quantlet:rate"}, "input": "json", "output": "json"}));
    submit(&server, &id, &[json!(6)]);
    close(&server, &id);
    ended(&server, &id);
    assert_eq!(results(&server, &id), [(0, json!(42))].into());
}

#[test]
fn tasks_are_made_from_a_database_that_sees_one_query() {
    let test = "tasks_are_made_from_a_database_that_sees_one_query";
    let Some(url) = std::env::var("TIDEMILL_TEST_POSTGRES").ok().filter(|v| !v.is_empty()) else {
        return skipped(test, "TIDEMILL_TEST_POSTGRES is not set; `cargo xtask stand-ins up` starts what it names");
    };
    if no_python(test) {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("tidemill.toml"), format!("[[grid.source]]\nname = \"book\"\nurl = \"{url}\"\n")).unwrap();
    let server = Server::start(Options { data: Some(data.path().to_owned()), company: false, ..Options::default() });
    let id = open(&server, json!({"function": {"module": "json:dumps"}, "input": "json", "output": "json"}));
    let path = format!("/api/v1/grid/sessions/{id}/tasks-from");
    let http = server.http();
    let query = "SELECT n AS id, n / 4.0 AS price, n % 2 = 0 AS even, DATE '2026-01-01' + n AS day, random() AS luck \
                 FROM generate_series(0, 5000) AS n ORDER BY n";
    let request = json!({"source": "book", "query": query, "rows": 1000});
    let made = http.post(&path, &request).is(201).json();
    assert_eq!((&made["count"], &made["runs"]), (&json!(6), &json!([[0, 6]])));
    // The second call answers from what the first was told, although the database would say something else.
    let again = http.post(&path, &request).is(200).json();
    assert_eq!(again["existing"], 6);
    close(&server, &id);
    assert_eq!(ended(&server, &id)["tasks"]["succeeded"], 6);
    let found = results(&server, &id);
    let rows: Vec<Value> = serde_json::from_str(found[&5].as_str().unwrap()).unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((&row["id"], &row["price"], &row["even"], &row["day"]), (&json!(5000), &json!(1250.0), &json!(true), &json!("2039-09-10")));
    let id = open(&server, json!({"function": {"module": "json:dumps"}, "input": "json", "output": "json"}));
    let path = format!("/api/v1/grid/sessions/{id}/tasks-from");
    for query in [
        "CREATE TABLE tidemill_it_no (x int)",
        "SELECT 1; SELECT 2",
        "SELECT 1) AS q) AS r; DROP TABLE x; --",
        "WITH gone AS (DELETE FROM pg_class RETURNING 1) SELECT * FROM gone",
        "SELECT 1 AS a, 2 AS a",
        "SELECT nothing FROM nowhere",
    ] {
        let answer = http.post(&path, &json!({"source": "book", "query": query}));
        assert!((400..600).contains(&answer.status) && answer.status != 500, "{query}: {} {}", answer.status, answer.text());
        assert!(!answer.text().contains(&url), "{}", answer.text());
    }
    assert_eq!(detail(&server, &id)["tasks"]["total"], 0);
    let shown = server.cli(&["config"]).stdout;
    assert!(!shown.contains(&url), "{shown}");
}
