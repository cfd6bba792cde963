//! From an empty folder to a finished job.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tidemill_it::{Call, Options, Server, on_engines};

fn serve(server: &Server, data: &str, listen: &str) -> tidemill_it::Outcome {
    Call::new(&["serve", "--data", data, "--listen", listen, "--workers", "0..0"]).within(server.folder()).run()
}

#[test]
fn an_empty_folder_becomes_a_server_that_the_command_line_finds() {
    let mut server = Server::start(Options { company: false, ..Options::default() });
    // On engines the key lies with them, for every manager to find.
    let key = if on_engines() { None } else { Some("grants.key") };
    for secret in ["admin-token", "worker-token"].into_iter().chain(key) {
        let mode = fs::metadata(server.data().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret} is for its owner alone");
    }
    server.anonymous().get("/livez").is(200);
    server.anonymous().get("/readyz").is(200);
    assert!(server.anonymous().get("/metrics").status < 500);
    let me = server.http().get("/api/v1/session").is(200).json();
    assert_eq!(me["role"], "admin", "{me}");
    let openapi = server.anonymous().get("/api/v1/openapi.json").is(200).json();
    assert!(openapi["paths"].as_object().is_some_and(|p| p.len() > 10), "the interface describes itself");

    // By the data folder, then by URL and token, as the documents say.
    let hello = server.cli(&["batch", "run", "--stdout", "--", "echo", "hello"]).ok();
    let listed = server.call_as(&server.token(), &["batch", "list", "-o", "json"]).run().ok().json();
    let id = listed["jobs"][0]["id"].as_str().unwrap().to_owned();
    assert!(hello.stderr.contains(&id), "the job's id is told: {hello}");
    assert_eq!(server.cli(&["batch", "results", &id, "--cat"]).ok().stdout, "hello\n");

    // What was acknowledged is still there after a restart, under the same token.
    let token = server.token();
    assert!(server.terminate().success(), "SIGTERM ends it well");
    assert!(!server.data().join("server.json").exists(), "nobody is sent to a server that has stopped");
    server.restart();
    assert_eq!(server.token(), token);
    assert_eq!(server.cli(&["batch", "results", &id, "--cat"]).ok().stdout, "hello\n");
}

#[test]
fn a_second_server_on_the_same_folder_or_address_is_refused() {
    let server = Server::start(Options { workers: "0..0", company: false, ..Options::default() });
    let data = server.data().to_string_lossy().into_owned();
    let same_folder = serve(&server, &data, "127.0.0.1:0");
    assert!(same_folder.code.is_some_and(|c| c != 0), "{same_folder}");
    assert!(same_folder.stderr.contains(&data), "the folder is named: {same_folder}");
    let address = server.url().trim_start_matches("http://").to_owned();
    let other = server.folder().join("other").to_string_lossy().into_owned();
    let same_address = serve(&server, &other, &address);
    assert!(same_address.code.is_some_and(|c| c != 0), "{same_address}");
    assert!(same_address.stderr.contains(&address), "the address is named: {same_address}");
    // And the first one has not noticed.
    server.anonymous().get("/readyz").is(200);
    server.http().get("/api/v1/overview").is(200);
}

#[test]
fn settings_come_from_flags_variables_and_file_in_that_order_and_mistakes_are_named() {
    let folder = tempfile_folder();
    let data = folder.path().to_string_lossy().into_owned();
    fs::write(folder.path().join("tidemill.toml"), "[fleet]\nworkers = \"0..7\"\nslots = 3\n[limits]\nmax-body = \"3MiB\"\n").unwrap();
    let show = |extra: &[&str]| {
        let args: Vec<&str> = ["--data", &data, "config", "-o", "json"].into_iter().chain(extra.iter().copied()).collect();
        Call::new(&args).env("TIDEMILL_FLEET_SLOTS", "5").run().ok().json()
    };
    let settings = show(&[]);
    let row = |key: &str| settings.as_array().unwrap().iter().find(|r| r["key"] == key).unwrap_or_else(|| panic!("{key}")).clone();
    assert!(row("fleet.workers")["value"].as_str().unwrap().contains("0..7"));
    assert!(row("fleet.workers")["from"].as_str().unwrap().ends_with("tidemill.toml"));
    assert_eq!(row("fleet.slots")["from"], "TIDEMILL_FLEET_SLOTS");
    assert_eq!(row("fleet.slots")["value"].to_string().replace('"', ""), "5");
    assert_eq!(row("server.listen")["from"], "default");
    fs::write(folder.path().join("tidemill.toml"), "[fleet]\nwrokers = \"0..7\"\n").unwrap();
    Call::new(&["--data", &data, "config"]).run().exits(2).says("wrokers").says("tidemill.toml");
    Call::new(&["--data", &data, "serve", "--set", "fleet.workers=9..2"]).run().exits(2);
}

fn tempfile_folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
