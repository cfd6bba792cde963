//! Traces, as a collector gets them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tidemill_it::{Options, Server, eventually};

/// A collector that answers everything with 200 and keeps the spans.
fn collector() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let spans: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = spans.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept) = (stream.unwrap(), kept.clone());
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut chunk) {
                    bytes.extend_from_slice(&chunk[..n]);
                    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap();
                    if bytes.len() < end + 4 + length {
                        continue;
                    }
                    assert!(head.starts_with("post /v1/traces "), "{head}");
                    let body: Value = serde_json::from_slice(&bytes[end + 4..end + 4 + length]).unwrap();
                    let new = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
                    kept.lock().unwrap().extend(new);
                    bytes.drain(..end + 4 + length);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}").unwrap();
                }
            });
        }
    });
    (url, spans)
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[test]
fn a_job_is_part_of_its_caller_s_trace_and_its_tasks_know_it() {
    let (url, spans) = collector();
    let server = Server::start(Options { args: vec!["--set".into(), format!("telemetry.otlp={url}")], ..Options::default() });
    let job = "name = \"n\"\n[[stage]]\nname = \"s\"\narray = \"1-2\"\nshell = true\ncommand = 'echo \"$TRACEPARENT\"'\noutput = { name = \"o\", stdout = true }\n";
    let made = server.http().with("traceparent", &format!("00-{TRACE}-{CALLER}-01")).send(
        "POST",
        "/api/v1/batch/jobs",
        "application/toml",
        job.into(),
    );
    let id = made.unwrap().is(201).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.ended(&id)["state"], "succeeded");
    let told = server.cli(&["batch", "results", &id, "--cat"]).ok().stdout;
    let of = |name: &str| {
        let all = spans.lock().unwrap();
        all.iter().find(|s| s["traceId"] == TRACE && s["name"].as_str().unwrap().starts_with(name)).cloned()
    };
    let submit = eventually("the request's span", || of("POST /api/v1/batch/jobs"));
    let job = eventually("the job's span", || of("job"));
    let stage = eventually("the stage's span", || of("stage"));
    assert_eq!((&submit["parentSpanId"], &submit["kind"]), (&CALLER.into(), &2.into()));
    assert_eq!((&job["parentSpanId"], &stage["parentSpanId"]), (&submit["spanId"], &job["spanId"]));
    let line = format!("00-{TRACE}-{}-01", job["spanId"].as_str().unwrap());
    assert_eq!(told.lines().collect::<Vec<_>>(), [line.as_str(), line.as_str()]);
    let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(nanos(&job, "endTimeUnixNano") > nanos(&job, "startTimeUnixNano"));
    assert!(!format!("{:?}", spans.lock().unwrap()).contains(&server.token()), "no secret goes to the collector");
}
