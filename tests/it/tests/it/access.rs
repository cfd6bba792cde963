//! Who may do what, and over which wire.

use std::fs;

use serde_json::json;
use tidemill_it::{Call, Http, Options, Server};

/// Makes a user and a token for it.
fn user(server: &Server, name: &str, role: &str) -> String {
    server.cli(&["user", "create", name, "--role", role]).ok();
    server.cli(&["token", "create", "--user", name, "--role", role, "-o", "quiet"]).ok().word().to_owned()
}

#[test]
fn without_a_good_token_nothing_is_said() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    for http in [server.anonymous(), server.http_as(Some("tm_wrong")), server.http_as(Some(""))] {
        for path in ["/api/v1/overview", "/api/v1/batch/jobs", "/api/v1/fleet/workers", "/api/v1/queues", "/api/v1/users", "/api/v1/tokens"]
        {
            let answer = http.get(path).is(401);
            assert_eq!(answer.json()["error"]["kind"], "denied", "{path}");
        }
        http.post("/api/v1/sql", &json!({"sql": "SELECT 1"})).is(401);
        http.post("/api/v1/credentials", &json!({"prefix": "data"})).is(401);
        http.put("/api/v1/objects/data/x", "x").is(401);
    }
    server.call_as("tm_wrong", &["batch", "list"]).run().exits(1);
    // A token that has been revoked, and one whose time is up.
    let token = user(&server, "ann", "user");
    server.http_as(Some(&token)).get("/api/v1/session").is(200);
    let listed = server.cli(&["token", "list", "--user", "ann", "-o", "quiet"]).ok();
    server.cli(&["token", "revoke", listed.word()]).ok();
    server.http_as(Some(&token)).get("/api/v1/session").is(401);
    let short = server.cli(&["token", "create", "--user", "ann", "--role", "user", "--ttl", "1s", "-o", "quiet"]).ok();
    tidemill_it::eventually("the token's time is up", || {
        (server.http_as(Some(short.word())).get("/api/v1/session").status == 401).then_some(())
    });
}

#[test]
fn roles_reach_as_far_as_they_say() {
    let server = Server::start(Options::default());
    let (viewer, ann, bob, operator) =
        (user(&server, "vera", "viewer"), user(&server, "ann", "user"), user(&server, "bob", "user"), user(&server, "olga", "operator"));
    let job = json!({"job": {"name": "n", "stage": [{"array": "1-1", "command": ["sleep", "300"]}]}});
    // A viewer looks and changes nothing.
    let http = server.http_as(Some(&viewer));
    http.get("/api/v1/batch/jobs").is(200);
    http.post("/api/v1/batch/jobs", &job).is(403);
    http.put("/api/v1/objects/data/x", "x").is(403);
    http.post("/api/v1/credentials", &json!({"prefix": "data"})).is(403);
    http.get("/api/v1/users").is(403);
    server.call_as(&viewer, &["batch", "run", "--detach", "--", "true"]).run().exits(1);
    // A user changes what is theirs.
    let id = server.call_as(&ann, &["batch", "run", "--detach", "--", "sleep", "300"]).run().ok().word().to_owned();
    assert_eq!(server.job(&id)["user"], "ann");
    let cancel = format!("/api/v1/batch/jobs/{id}/cancel");
    for who in [&bob, &viewer] {
        server.http_as(Some(who)).post(&cancel, &json!({})).is(403);
        server.http_as(Some(who)).post(&format!("/api/v1/batch/jobs/{id}/pause"), &json!({})).is(403);
    }
    server.call_as(&bob, &["batch", "cancel", &id]).run().exits(1);
    assert!(["waiting", "running"].contains(&server.job(&id)["state"].as_str().unwrap()), "nobody cancelled it");
    server.http_as(Some(&bob)).post("/api/v1/queues/batch.dead/redrive", &json!({})).is(403);
    // Nobody makes a token that reaches further than their own.
    for role in ["admin", "operator", "worker"] {
        server.call_as(&bob, &["token", "create", "--role", role]).run().exits(1);
    }
    server.call_as(&bob, &["token", "create", "--user", "ann"]).run().exits(1);
    server.http_as(Some(&bob)).post("/api/v1/users", &json!({"name": "eve", "role": "admin"})).is(403);
    // An operator manages everybody's.
    server.call_as(&operator, &["batch", "cancel", &id]).run().ok();
    assert_eq!(server.ended(&id)["state"], "cancelled");
    server.http_as(Some(&operator)).post("/api/v1/users", &json!({"name": "eve", "role": "viewer"})).is(403);
}

#[test]
fn a_worker_s_token_opens_what_workers_need_and_nothing_else() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let token = fs::read_to_string(server.data().join("worker-token")).unwrap();
    let http = server.http_as(Some(token.trim()));
    for path in [
        "/api/v1/overview",
        "/api/v1/batch/jobs",
        "/api/v1/fleet/workers",
        "/api/v1/queues",
        "/api/v1/users",
        "/api/v1/queues/batch.dead/messages",
    ] {
        http.get(path).is(403);
    }
    http.post("/api/v1/sql", &json!({"sql": "SELECT * FROM batch.jobs"})).is(403);
    http.post("/api/v1/batch/jobs", &json!({"job": {"name": "n", "stage": [{"array": "1-1", "command": ["true"]}]}})).is(403);
    http.post("/api/v1/credentials", &json!({"prefix": "data"})).is(403);
    http.post("/api/v1/credentials", &json!({"prefix": "data", "read_only": true})).is(403);
    http.put("/api/v1/objects/data/x", "x").is(403);
    http.get("/api/v1/objects/data/x").is(403);
    http.post("/api/v1/tokens", &json!({"role": "admin"})).is(403);
    // And a user's token is no worker's.
    let ann = user(&server, "ann", "user");
    let refused = Call::new(&["worker", "--manager", server.url(), "--id", "intruder"]).env("TIDEMILL_TOKEN", &ann).start();
    tidemill_it::pause(std::time::Duration::from_secs(3));
    assert!(server.workers().is_empty(), "{:?}", server.workers());
    drop(refused);
}

#[test]
fn tls_is_made_by_one_flag_and_the_command_line_trusts_it() {
    let server = Server::start(Options { tls: true, ..Options::default() });
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let key_mode =
        fs::metadata(server.data().join("tls").join("key.pem")).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()));
    assert_eq!(key_mode.unwrap() & 0o777, 0o600);
    server.anonymous().get("/readyz").is(200);
    // Local workers and the command line reach it over TLS.
    let done = server.cli(&["batch", "run", "--stdout", "-o", "json", "--", "echo", "over tls"]).ok().json();
    let id = done["id"].as_str().unwrap();
    assert_eq!(server.cli(&["batch", "results", id, "--cat"]).ok().stdout, "over tls\n");
    // Who does not trust the certificate gets nowhere, and plain text gets no answer.
    let stranger = Http::new(server.url(), Some(&server.token()), None);
    assert!(stranger.send("GET", "/api/v1/overview", "text/plain", Vec::new()).is_err());
    let plain = Http::new(&server.url().replace("https://", "http://"), None, None);
    assert!(plain.send("GET", "/readyz", "text/plain", Vec::new()).is_err());
}

#[test]
fn beyond_this_machine_nothing_is_served_in_plain_text_unless_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let serve = |extra: &[&str]| {
        let args: Vec<&str> = ["--data", &data, "serve", "--workers", "0..0"].into_iter().chain(extra.iter().copied()).collect();
        Call::new(&args).run().exits(2)
    };
    serve(&["--listen", "0.0.0.0:0"]).says("0.0.0.0").says("--tls-generate").says("--insecure");
    serve(&["--listen", "[::]:0"]).says("--tls-generate");
    serve(&["--listen", "127.0.0.1:0", "--s3-listen", "0.0.0.0:0"]).says("--insecure");
}
