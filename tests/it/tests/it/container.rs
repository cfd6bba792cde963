//! Tasks in containers, where there is an engine and an image.

use std::process::Command;

use tidemill_it::{Options, Server, eventually, skipped};

/// An engine that answers and the name of an image that it has.
fn engine() -> Result<(String, String), String> {
    let mut reasons = Vec::new();
    for engine in ["podman", "docker"] {
        let list = Command::new(engine).args(["image", "list", "--format", "{{.Repository}}:{{.Tag}}"]).output();
        match list {
            Err(e) => reasons.push(format!("{engine}: {e}")),
            Ok(done) if !done.status.success() => reasons.push(format!("{engine}: {}", String::from_utf8_lossy(&done.stderr).trim())),
            Ok(done) => match String::from_utf8_lossy(&done.stdout).lines().find(|l| !l.contains("<none>")) {
                Some(image) => return Ok((engine.to_owned(), image.to_owned())),
                None => reasons.push(format!("{engine} has no image; pull one such as docker.io/library/busybox")),
            },
        }
    }
    Err(reasons.join("; "))
}

#[test]
fn a_task_runs_in_a_container() {
    let (engine, image) = match engine() {
        Ok(found) => found,
        Err(why) => return skipped("container tasks", &why),
    };
    let server = Server::start(Options { workers: "1..1", ..Options::default() });
    eventually("the worker has found the engine", || {
        server.workers().iter().any(|w| w["tools"].to_string().contains(&engine)).then_some(())
    });
    server.http().put("/api/v1/objects/data/a.txt", "in the container").is(201);
    let job = format!(
        "name = \"boxed\"\n[[stage]]\nobjects = [\"data/*.txt\"]\ncontainer = {{ image = \"{image}\", engine = \"{engine}\" }}\n\
         command = [\"sh\", \"-c\", 'cat \"$1\" > \"$2\"', \"sh\", \"{{in}}\", \"{{out}}\"]\n"
    );
    let id = server.submit(&job);
    let ended = server.ended(&id);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(server.results(&id)["a.txt"], b"in the container");
}

#[test]
fn a_container_task_without_an_engine_says_what_is_missing() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let _worker = tidemill_it::Worker::start(&server, "bare", &["--slots", "1"]);
    if server.workers()[0]["tools"].as_array().is_some_and(|t| !t.is_empty()) {
        return skipped("container tasks without an engine", "this machine has an engine");
    }
    let id = server
        .submit("name = \"boxed\"\n[[stage]]\narray = \"1-1\"\nretries = 0\ncontainer = { image = \"busybox\" }\ncommand = [\"true\"]\n");
    let job = server.ended(&id);
    assert_eq!(job["state"], "failed", "{job}");
    let failures = server.sql(&format!("SELECT class, message FROM batch.failures WHERE job = '{id}'"));
    assert_eq!(failures[0]["class"], "start", "{failures:?}");
    assert!(failures[0]["message"].as_str().unwrap().contains("podman"), "{failures:?}");
}
