//! SIGTERM: what runs is finished, what waits is kept, and everything ends well.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemill_it::{Options, Server, Worker, eventually};

#[test]
fn a_worker_that_is_asked_to_stop_finishes_its_task_and_hands_back_the_rest() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let log = server.folder().join("starts");
    let mut first = Worker::start(&server, "first", &["--slots", "1"]);
    let script = format!("echo $1 >> '{}'; sleep 2; echo $1 > $2", log.display());
    let id = server.detach(&["--array", "1-4", "--output-name", "{index}", "--", "sh", "-c", &script, "sh", "{index}", "{out}"]);
    server.until(&id, "running", 1);
    first.process.signal(libc::SIGTERM);
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    let started = fs::read_to_string(&log).unwrap().lines().count() as u64;
    assert!(started < 4, "it did not go on to the end: {started}");
    let shown = eventually("what it finished is counted", || {
        let job = server.job(&id);
        (job["tasks"]["succeeded"].as_u64() >= Some(started)).then_some(job)
    });
    assert_eq!(shown["tasks"]["succeeded"], started, "its task was finished and not thrown away");
    let _second = Worker::start(&server, "second", &["--slots", "2"]);
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["attempts"]), (Some("succeeded"), &4.into()), "nothing was tried twice: {job}");
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 4);
    assert_eq!(server.results(&id).len(), 4);
}

#[test]
fn a_server_that_is_asked_to_stop_lets_tasks_finish_and_goes_on_when_it_is_back() {
    let mut server = Server::start(Options { workers: "1..1", slots: 2, company: false, ..Options::default() });
    let log = server.folder().join("starts");
    let script = format!("echo $1 >> '{}'; sleep 1.5; echo $1 > $2", log.display());
    let id = server.detach(&["--array", "1-8", "--output-name", "{index}", "--", "sh", "-c", &script, "sh", "{index}", "{out}"]);
    server.until(&id, "running", 2);
    assert_eq!(server.terminate().code(), Some(0));
    assert!(tidemill_it::processes_of(server.data()).is_empty(), "no worker and no task is left behind");
    let before = fs::read_to_string(&log).unwrap().lines().count();
    assert!((2..8).contains(&before), "{before} tasks had started");
    server.restart();
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["attempts"]), (Some("succeeded"), &8.into()), "{job}");
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 8, "no task was started twice");
    assert_eq!(server.results(&id).len(), 8);
}

#[test]
fn a_worker_whose_instance_will_be_taken_away_finishes_its_task_and_goes() {
    // The instance metadata service: a token for whoever asks, and what Auto Scaling has in mind.
    let metadata = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = metadata.local_addr().unwrap();
    let leaving = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&leaving);
    std::thread::spawn(move || {
        for mut client in metadata.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let n = client.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            let body = match request.split(' ').nth(1) {
                Some("/latest/api/token") => Some("token"),
                Some(path) if path.ends_with("target-lifecycle-state") && seen.load(Ordering::Relaxed) => Some("Terminated"),
                _ => None,
            };
            let head = format!("HTTP/1.1 {}\r\n", if body.is_some() { "200 OK" } else { "404 Not Found" });
            let fields = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\nconnection: close\r\ncontent-length: ";
            let body = body.unwrap_or("");
            drop(client.write_all(format!("{head}{fields}{}\r\n\r\n{body}", body.len()).as_bytes()));
        }
    });
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT".to_owned(), format!("http://{address}"))];
    let scratch = server.folder().join("outside").join("leaving");
    let mut worker = Worker::start_with(&server, "leaving", scratch, &["--slots", "1", "--watch-notices"], &variables);
    let id = server.detach(&["--array", "1-3", "--output-name", "{index}", "--", "sh", "-c", "sleep 2; echo done > $1", "sh", "{out}"]);
    server.until(&id, "running", 1);
    leaving.store(true, Ordering::Relaxed);
    assert_eq!(worker.wait(), Some(0), "{}", worker.log());
    assert!(worker.log().contains("taken away"), "{}", worker.log());
    let _next = Worker::start(&server, "next", &["--slots", "3"]);
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["attempts"]), (Some("succeeded"), &3.into()), "nothing was lost or tried twice: {job}");
}

#[test]
fn a_worker_can_be_drained_by_name() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let mut first = Worker::start(&server, "first", &["--slots", "1"]);
    let _second = Worker::start(&server, "second", &["--slots", "1"]);
    server.cli(&["fleet", "drain", "first"]).ok();
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    let done = server.cli(&["batch", "run", "--array", "1-5", "-o", "json", "--", "true"]).ok().json();
    let rows = server.sql(&format!("SELECT DISTINCT worker FROM batch.tasks WHERE job = '{}'", done["id"].as_str().unwrap()));
    assert_eq!(rows.iter().map(|r| r["worker"].as_str().unwrap()).collect::<Vec<_>>(), ["second"]);
}
