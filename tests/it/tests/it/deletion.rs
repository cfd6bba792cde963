//! Deleting jobs, by hand and by their age.

use std::path::Path;

use serde_json::Value;
use tidemill_it::{Options, Server, eventually};

fn failing_job(server: &Server) -> String {
    let input = server.folder().join("input");
    std::fs::create_dir_all(&input).unwrap();
    for n in 0..3 {
        std::fs::write(input.join(format!("{n}.txt")), format!("content {n}")).unwrap();
    }
    let pattern = input.join("*.txt").display().to_string();
    let script = "cp \"$1\" \"$2\"; head -c 200000 /dev/zero >> \"$2\"; grep -qv 2 \"$1\"";
    server.detach(&["--input", &pattern, "--retries", "0", "--", "sh", "-c", script, "sh", "{in}", "{out}"])
}

/// Files below a folder whose name or contents hold the text.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if std::fs::read(&path).is_ok_and(|b| b.windows(text.len()).any(|w| w == text.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn count(server: &Server, query: &str) -> u64 {
    server.sql(query)[0]["n"].as_u64().unwrap()
}

fn dead_letters(server: &Server) -> Vec<Value> {
    let list = server.http().get("/api/v1/queues/batch.dead/messages?limit=100").is(200).json();
    list["messages"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_deleted_job_is_gone_with_all_that_was_left_of_it_and_others_stay() {
    let mut server = Server::start(Options::default());
    let kept = failing_job(&server);
    server.ended(&kept);
    let before = server.objects();
    let id = failing_job(&server);
    let job = server.ended(&id);
    assert_eq!((&job["state"], &job["tasks"]["failed"]), (&Value::from("failed"), &Value::from(1)), "{job}");
    assert!(server.objects() > before, "large results are files");
    eventually("both dead letters are there", || (dead_letters(&server).len() == 2).then_some(()));

    let running = server.detach(&["--array", "1-1", "--", "sleep", "60"]);
    server.until(&running, "running", 1);
    let refused = server.cli(&["batch", "delete", &running]);
    assert!(refused.code != Some(0) && refused.stderr.contains("only a job that has ended"), "{refused}");
    server.cli(&["batch", "cancel", &running]).ok();
    server.ended(&running);

    // The word is durable before the work is done: a manager that dies in between goes on when it is back.
    server.cli(&["batch", "delete", "--detach", &id]).ok();
    server.kill9();
    server.restart();
    eventually("the job is gone", || {
        let gone = server.http().get(&format!("/api/v1/batch/jobs/{id}/deletion")).status == 404;
        (gone && server.http().get(&format!("/api/v1/batch/jobs/{id}")).status == 404).then_some(())
    });
    server.cli(&["batch", "delete", &running]).ok();
    for of_job in [&id, &running] {
        for table in ["jobs WHERE id", "stages WHERE job", "tasks WHERE job"] {
            assert_eq!(count(&server, &format!("SELECT count(*) AS n FROM batch.{table} = '{of_job}'")), 0, "{table}");
        }
        let missing = server.cli(&["batch", "show", of_job]);
        assert!(missing.code != Some(0) && missing.stderr.contains(of_job.as_str()), "{missing}");
    }
    assert!(dead_letters(&server).iter().all(|m| !m.to_string().contains(&id)) && dead_letters(&server).len() == 1);
    eventually("the files are removed", || (server.objects() == before).then_some(()));
    assert_eq!(count(&server, &format!("SELECT count(*) AS n FROM batch.tasks WHERE job = '{kept}'")), 3);
    let results = server.http().get(&format!("/api/v1/batch/jobs/{kept}/results")).is(200).json();
    assert_eq!(results["files"].as_array().map(Vec::len), Some(2), "{results}");
    assert!(holding(&server.data().join("objects"), "content 0").len() <= 2, "only the other job's");
}

#[test]
fn jobs_go_by_themselves_when_their_time_is_over_and_a_job_that_is_waited_for_does_not() {
    let server = Server::start(Options { args: vec!["--set".into(), "batch.keep=3s".into()], ..Options::default() });
    let first = server.detach(&["--array", "1-2", "--", "true"]);
    server.ended(&first);
    let file = format!(
        "name = \"later\"\nafter = [\"{first}\"]\nat = \"2999-01-01T00:00:00Z\"\n[[stage]]\narray = \"1-1\"\ncommand = [\"true\"]\n"
    );
    let waiting = server.submit(&file);
    let second = server.detach(&["--array", "1-2", "--", "true"]);
    server.ended(&second);
    let status = |id: &str| server.http().get(&format!("/api/v1/batch/jobs/{id}")).status;
    eventually("the second job is gone", || (status(&second) == 404).then_some(()));
    assert_eq!(status(&first), 200);
    let refused = server.cli(&["batch", "delete", &first]);
    assert!(refused.code != Some(0) && refused.stderr.contains(&waiting), "{refused}");
    server.cli(&["batch", "cancel", &waiting]).ok();
    eventually("the first job is gone", || (status(&first) == 404).then_some(()));
}

const INTERIM: &str = r#"
name = "interim"

[[stage]]
name = "make"
array = "1-3"
shell = true
command = 'head -c 200000 /dev/zero > "$out"; echo "made $index"'
output = "big.bin"
keep = { outputs = false }

[[stage]]
name = "count"
from = "make"
mode = "gather"
shell = true
command = 'cat $(cat "$inputs") | wc -c > "$out"'
output = "total"
"#;

#[test]
fn outputs_that_are_not_to_be_kept_are_dropped_when_the_job_has_succeeded_and_logs_stay() {
    let server = Server::start(Options::default());
    let before = server.objects();
    let id = server.submit(INTERIM);
    assert_eq!(server.ended(&id)["state"], "succeeded");
    let files = |stage: &str| {
        let list = server.http().get(&format!("/api/v1/batch/jobs/{id}/results?stage={stage}")).is(200).json();
        list["files"].as_array().cloned().unwrap_or_default()
    };
    eventually("the interim files are gone", || (files("make").is_empty() && server.objects() == before).then_some(()));
    assert_eq!(files("count").len(), 1);
    let href = files("count")[0]["href"].as_str().unwrap().to_owned();
    assert_eq!(server.http().get(&format!("/api/v1{href}")).is(200).text().trim(), "600000");
    let log = server.http().get(&format!("/api/v1/batch/jobs/{id}/logs/0/0?stream=stdout")).is(200).text();
    assert_eq!(log.trim(), "made 1");
}
