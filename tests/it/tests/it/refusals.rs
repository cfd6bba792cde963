//! Input that is wrong is refused before anything runs, by name, reason and place.

use tidemill_it::{Options, Server};

fn server() -> Server {
    Server::start(Options { workers: "0..1", slots: 2, args: vec!["--memory".into(), "1GiB".into()], company: false, ..Options::default() })
}

#[test]
fn a_job_file_with_a_mistake_is_refused_with_its_place() {
    let server = server();
    let submit = |text: &str| server.call(&["batch", "submit", "-"]).stdin(text).run().exits(2);
    let stage = |lines: &str| format!("name = \"n\"\n[[stage]]\n{lines}\n");
    submit("name = \"n\"\npriorty = 3\n[[stage]]\narray = \"1-2\"\ncommand = [\"true\"]\n").says("line 2").says("priorty").says("priority");
    submit(&stage("array = \"1-2\"\ncommnd = [\"true\"]")).says("line 4").says("commnd");
    submit(&stage("array = \"1-2\"\ncommand = \"true\"")).says("line 4").says("list of arguments");
    submit(&stage("array = \"9-2\"\ncommand = [\"true\"]")).says("9-2");
    submit(&stage("array = \"1-2\"\ncommand = [\"true\", \"{nmae}\"]")).says("{name}");
    submit(&stage("array = \"1-2\"\ncommand = [\"true\"]\nfrom = \"x\"")).says("exclude each other");
    submit(&stage("from = \"nowhere\"\ncommand = [\"true\"]")).says("nowhere");
    submit(&stage("array = \"1-2\"\ncommand = [\"true\"]\nkey = ")).says("line 5");
    submit(&stage("array = \"1-2\"\ncommand = [\"cp\", \"x\", \"{out}\"]\noutput = \"../up\"")).says("../up");
    submit(&stage("objects = [\"b/../c/*\"]\ncommand = [\"true\"]")).says("..");
    submit(&stage("array = \"1-2\"\ncommand = [\"true\"]\nsecrets = { T = \"hunter2\" }"));
    // The same from the server, for those who do not use the command line.
    let http = server.http();
    let bad = http.send("POST", "/api/v1/batch/jobs", "application/toml", b"name = \"n\"\npriorty = 3\n".to_vec()).unwrap().is(400).json();
    assert_eq!(bad["error"]["kind"], "invalid");
    assert!(bad["error"]["message"].as_str().unwrap().contains("line 2"), "{bad}");
    assert!(bad["error"]["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{bad}");
    assert_eq!(http.get("/api/v1/batch/jobs").json()["jobs"].as_array().unwrap().len(), 0, "nothing was accepted");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let server = server();
    let text = "name = \"n\"\n[[stage]]\narray = \"1-2\"\ncommand = [\"true\"]\nsecrets = { T = \"hunter2\" }\n";
    let said = server.call(&["batch", "submit", "-"]).stdin(text).run().exits(2);
    assert!(!said.stderr.contains("hunter2"), "{said}");
    server.http().send("POST", "/api/v1/batch/jobs", "application/toml", text.as_bytes().to_vec()).unwrap().is(400);
    assert!(!server.log().contains("hunter2"), "a secret reached the log");
    assert!(!server.log().contains(&server.token()), "a token reached the log");
}

#[test]
fn what_no_worker_could_ever_run_is_refused_with_what_there_is() {
    let server = server();
    let run = |args: &[&str]| {
        let all: Vec<&str> = ["batch", "run", "--detach"].into_iter().chain(args.iter().copied()).chain(["--", "true"]).collect();
        server.cli(&all).exits(2)
    };
    run(&["--cpus", "64"]).says("64").says("largest worker has 2");
    run(&["--memory", "64GiB"]).says("64").says("largest worker has");
    run(&["--resource", "gpu=1"]).says("`gpu`");
}

#[test]
fn names_that_leave_their_place_are_refused_everywhere() {
    let server = server();
    server.cli(&["batch", "run", "--output-name", "../x", "--", "cp", "/etc/hostname", "{out}"]).exits(2).says("../x");
    server.cli(&["batch", "run", "--objects", "../etc/*", "--", "cat", "{in}"]).exits(2);
    let http = server.http();
    for path in ["data/%2e%2e/x", "data/a/%2e%2e/%2e%2e/x", "data/a%2f%2e%2e%2fb", "data//x", "x"] {
        let put = http.put(&format!("/api/v1/objects/{path}"), "x");
        assert!((400..500).contains(&put.status), "{path}: {} {}", put.status, put.text());
        let get = http.get(&format!("/api/v1/objects/{path}"));
        assert!((400..500).contains(&get.status), "{path}: {}", get.status);
    }
    for bucket in ["system", "jobs"] {
        http.put(&format!("/api/v1/objects/{bucket}/x"), "x").is(403);
    }
    http.get("/api/v1/batch/jobs/..%2f..%2fx").is(404);
    http.get("/api/v1/batch/jobs/x/files/0/0/..%2f..%2fadmin-token").is(404);
}

#[test]
fn too_much_is_refused_and_said() {
    let server = server();
    let http = server.http();
    let long = "x".repeat(20 << 20);
    let too_long = http.send("POST", "/api/v1/batch/jobs", "application/toml", long.into_bytes());
    assert!(too_long.is_err() || too_long.is_ok_and(|a| a.status == 413), "a body over the limit");
    server.cli(&["batch", "run", "--array", "1-9000000000", "--", "true"]).exits(1).says("limit");
    http.post("/api/v1/sql", &serde_json::json!({"sql": "SELEC 1"})).is(400);
    http.post("/api/v1/sql", &serde_json::json!({"sql": "DELETE FROM batch.jobs"})).is(403);
    http.post("/api/v1/sql", &serde_json::json!({"sql": "COPY (SELECT 1) TO '/tmp/tidemill-it-stolen'"})).is(403);
}
