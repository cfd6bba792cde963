//! SQL by PostgreSQL's protocol, asked by the clients that people have: psql and the drivers of Python.
//!
//! The drivers are installed once, into the cache folder; their checks are in `pgwire/clients.py`. Where neither can be had the test says so.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::json;
use tidemill_it::{Options, Server, eventually, free_port, program, python_with, skipped};

const PACKAGES: [&str; 8] = [
    "psycopg[binary]==3.3.9",
    "psycopg2-binary==2.9.13",
    "SQLAlchemy==2.1.9",
    "asyncpg",
    "pandas",
    "pyarrow",
    "adbc-driver-manager",
    "adbc-driver-postgresql",
];

/// The interpreter of an environment that has the drivers; why not, where it cannot be made.
fn python() -> Result<&'static Path, &'static str> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(|| python_with("pg", &PACKAGES)).as_ref().map(PathBuf::as_path).map_err(String::as_str)
}

/// A server with an SQL endpoint.
struct Endpoint {
    server: Server,
    port: u16,
}

fn start(options: Options, host: &str) -> Endpoint {
    let port = free_port();
    let args = ["--sql-listen".to_owned(), format!("{host}:{port}")].into_iter().chain(options.args.clone()).collect();
    Endpoint { server: Server::start(Options { args, ..options }), port }
}

fn local() -> Endpoint {
    start(Options { workers: "1..1", ..Options::default() }, "127.0.0.1")
}

impl Endpoint {
    /// Runs checks of `clients.py` against a server that has run a job; false where they could not be run.
    fn check(&self, test: &str, checks: &[&str]) -> bool {
        let python = match python() {
            Ok(python) => python,
            Err(why) => {
                skipped(test, &format!("the drivers cannot be installed ({why})"));
                return false;
            }
        };
        let id = self.server.detach(&["--name", "looked-at", "--array", "1-20", "--", "true"]);
        assert_eq!(self.server.ended(&id)["state"], "succeeded");
        let count = format!("SELECT count(*) AS n FROM batch.tasks WHERE job = '{id}'");
        eventually("statistics of every task", || (self.server.sql(&count)[0]["n"] == 20).then_some(()));
        let setup = self.server.folder().join("setup.json");
        let text = json!({"port": self.port, "token": self.server.token(), "job": id, "tasks": 20}).to_string();
        std::fs::write(&setup, text).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pgwire/clients.py");
        for check in checks {
            let output = Command::new(python).arg(&script).arg(&setup).arg(check).output().unwrap();
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && out.contains(&format!("ok {check}")), "{check}\n{out}\n{err}");
        }
        true
    }

    /// Runs psql with one command; `None` where there is no psql.
    fn psql(&self, host: &str, token: &str, variables: &[(&str, &str)], command: &str) -> Option<Output> {
        let psql = program("psql")?;
        let mut call = Command::new(psql);
        call.args([
            "-X",
            "-w",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            host,
            "-p",
            &self.port.to_string(),
            "-U",
            "tidemill",
            "-d",
            "tidemill",
        ]);
        call.env("PGPASSWORD", token).env("PGCONNECT_TIMEOUT", "20").envs(variables.iter().copied()).args(["-c", command]);
        Some(call.output().unwrap())
    }
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn err(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const NO_PSQL: &str = "there is no psql (Debian: apt-get install postgresql-client)";

#[test]
fn psql_asks_while_a_job_runs_and_describes_what_there_is() {
    if program("psql").is_none() {
        return skipped("psql_asks_while_a_job_runs_and_describes_what_there_is", NO_PSQL);
    }
    let endpoint = local();
    let (server, token) = (&endpoint.server, endpoint.server.token());
    let id = server.detach(&["--name", "watched", "--array", "1-40", "--", "sleep", "0.2"]);
    server.until(&id, "succeeded", 3);
    let ask = |sql: &str| endpoint.psql("127.0.0.1", &token, &[], sql).map(|o| out(&o)).unwrap_or_default();
    let count = format!("SELECT succeeded FROM batch.stages WHERE job = '{id}'");
    let before: u64 = ask(&count).parse().unwrap();
    assert!((3..=40).contains(&before), "{before}");
    assert_eq!(ask(&format!("SELECT name, state FROM jobs WHERE id = '{id}'")).split('|').next(), Some("watched"));
    assert_eq!(server.ended(&id)["state"], "succeeded");
    assert_eq!(ask(&count), "40");
    let tables = ask("\\dt");
    for table in ["batch|jobs|table|", "batch|tasks|table|", "fleet|workers|table|"] {
        assert!(tables.contains(table), "{tables}");
    }
    let columns = ask("\\d batch.jobs");
    assert!(columns.contains("id|text|||") && columns.contains("submitted_at|timestamp with time zone|||"), "{columns}");
    assert!(ask("\\dn").contains("batch|"));
    assert!(ask("\\l").starts_with("tidemill|tidemill|UTF8|"));
    for command in
        ["\\d", "\\d+ jobs", "\\dv", "\\di", "\\df", "\\dT", "\\du", "\\dx", "\\dp", "\\dS", "\\dt+", "\\l+", "\\conninfo", "\\dt batch.*"]
    {
        ask(command);
    }
    let csv = ask("\\copy (SELECT 1 AS a, 'x,y' AS b) TO STDOUT WITH (FORMAT csv, HEADER)");
    assert_eq!(csv, "a,b\n1,\"x,y\"");
    let refused = endpoint.psql("127.0.0.1", &token, &[], "DELETE FROM batch.jobs").map(|o| err(&o)).unwrap_or_default();
    assert!(refused.contains("only reads") && refused.contains("HINT:"), "{refused}");
}

#[test]
fn tokens_are_passwords_and_roles_are_those_of_http() {
    if program("psql").is_none() {
        return skipped("tokens_are_passwords_and_roles_are_those_of_http", NO_PSQL);
    }
    // One manager alone: another one may take a revoked token for five seconds more, and counts for itself.
    let endpoint = start(Options { workers: "0..0", company: false, ..Options::default() }, "127.0.0.1");
    let server = &endpoint.server;
    let token = |name: &str, role: &str| {
        server.cli(&["user", "create", name, "--role", role]).ok();
        server.cli(&["token", "create", "--user", name, "--role", role, "-o", "quiet"]).ok().word().to_owned()
    };
    let (viewer, worker) = (token("vera", "viewer"), token("wendy", "worker"));
    let as_ = |token: &str, sql: &str| endpoint.psql("127.0.0.1", token, &[], sql);
    assert_eq!(out(&as_(&viewer, "SELECT current_user, count(*) FROM batch.jobs").unwrap()), "vera|0");
    assert!(err(&as_(&viewer, "INSERT INTO batch.jobs (id) VALUES ('x')").unwrap()).contains("only reads"));
    assert!(err(&as_(&worker, "SELECT 1").unwrap()).contains("viewer"));
    for wrong in ["tm_wrong", "secret", &viewer[..viewer.len() - 1]] {
        let said = err(&as_(wrong, "SELECT 1").unwrap());
        assert!(said.contains("FATAL") && said.contains("not valid"), "{said}");
    }
    let listed = server.cli(&["token", "list", "--user", "vera", "-o", "quiet"]).ok();
    server.cli(&["token", "revoke", listed.word()]).ok();
    assert!(err(&as_(&viewer, "SELECT 1").unwrap()).contains("not valid"));
    let metrics = server.http().get("/metrics").is(200).text();
    for name in
        ["tidemill_pgwire_sign_ins_total{outcome=\"refused\"}", "tidemill_pgwire_statements_total{outcome=\"ok\"}", "state=\"25006\""]
    {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
}

/// An address of this machine that is not loopback; nothing is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn from_elsewhere_a_password_travels_by_tls_alone() {
    const TEST: &str = "from_elsewhere_a_password_travels_by_tls_alone";
    if program("psql").is_none() {
        return skipped(TEST, NO_PSQL);
    }
    let endpoint = start(Options { workers: "0..0", tls: true, ..Options::default() }, "0.0.0.0");
    let token = endpoint.server.token();
    let ca = endpoint.server.ca_file().unwrap().to_string_lossy().into_owned();
    let ask = |host: &str, variables: &[(&str, &str)]| endpoint.psql(host, &token, variables, "SELECT 1").unwrap();
    assert_eq!(out(&ask("127.0.0.1", &[("PGSSLMODE", "require")])), "1");
    assert_eq!(out(&ask("localhost", &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &ca)])), "1");
    assert_eq!(out(&ask("127.0.0.1", &[("PGSSLMODE", "disable")])), "1", "on this machine nobody listens in");
    let Some(address) = own_address() else {
        return skipped(TEST, "this machine has no address but loopback, so that clear text from elsewhere could not be tried");
    };
    let address = address.to_string();
    assert_eq!(out(&ask(&address, &[("PGSSLMODE", "require")])), "1");
    let said = err(&ask(&address, &[("PGSSLMODE", "disable")]));
    assert!(said.contains("clear text") && said.contains("sslmode=require"), "{said}");
}

#[test]
fn beyond_this_machine_the_endpoint_wants_tls_or_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let args = ["--data", &data, "serve", "--workers", "0..0", "--listen", "127.0.0.1:0", "--sql-listen", "0.0.0.0:0"];
    tidemill_it::Call::new(&args).run().exits(2).says("--tls-generate").says("--insecure");
}

#[test]
fn psycopg_has_parameters_portals_cancellation_and_clear_refusals() {
    local()
        .check("psycopg_has_parameters_portals_cancellation_and_clear_refusals", &["parameters", "portals", "cancel", "refusals", "many"]);
}

#[test]
fn sqlalchemy_and_pandas_find_tables_by_themselves() {
    local().check("sqlalchemy_and_pandas_find_tables_by_themselves", &["sqlalchemy"]);
}

#[test]
fn arrow_and_asyncio_drivers_read_binary() {
    local().check("arrow_and_asyncio_drivers_read_binary", &["adbc", "asyncpg"]);
}

#[test]
fn a_server_that_stops_lets_go_of_its_clients() {
    if program("psql").is_none() {
        return skipped("a_server_that_stops_lets_go_of_its_clients", NO_PSQL);
    }
    let mut endpoint = start(Options { workers: "0..0", ..Options::default() }, "127.0.0.1");
    let token = endpoint.server.token();
    let forever = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c";
    let port = endpoint.port.to_string();
    let mut client = Command::new(program("psql").unwrap());
    client.args(["-X", "-w", "-h", "127.0.0.1", "-p", &port, "-U", "tidemill", "-d", "tidemill", "-c", forever]).env("PGPASSWORD", &token);
    let client = client.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("the statement runs", || {
        let metrics = endpoint.server.http().get("/metrics").is(200).text();
        metrics.lines().any(|l| l.starts_with("tidemill_pgwire_connections 1")).then_some(())
    });
    assert!(endpoint.server.terminate().success());
    let output = client.wait_with_output().unwrap();
    assert!(err(&output).contains("the server is stopping"), "{}", String::from_utf8_lossy(&output.stderr));
}
