//! Real S3 clients (boto3, the AWS command line, rclone) against the endpoint on loopback.
//!
//! The checks themselves are in `s3_clients.py`; this starts the endpoints, makes the credentials and runs it. The Python packages
//! are installed once, into the cache folder.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;
use tidemill_base::Env;
use tidemill_blocks::grants::{Credential, Grants, Scope, Verbs};
use tidemill_blocks::objects::Objects;
use tidemill_embedded::grants::EmbeddedGrants;
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tidemill_server::s3::{Settings, StaticKey, StaticKeys, s3_service, serve};

const PACKAGES: [&str; 2] = ["boto3", "awscli"];

#[derive(Debug)]
struct Keys(BTreeMap<String, StaticKey>);

impl StaticKeys for Keys {
    fn lookup(&self, access_key: &str) -> Option<StaticKey> {
        self.0.get(access_key).cloned()
    }
}

fn run(what: &str, command: &mut Command) -> Output {
    let hint = "this test needs Python 3 with venv and pip (Debian: apt-get install python3-venv python3-pip), \
                and once a connection to the package index";
    let output = command.output().unwrap_or_else(|e| panic!("{what}: {command:?} does not start: {e}; {hint}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {command:?} ended with {}: {text}\n{hint}", output.status);
    output
}

/// The interpreter of an environment that has the packages. Made once, however many tests ask for it.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(make_environment)
}

fn make_environment() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME or XDG_CACHE_HOME is set")).join(".cache"));
    let venv = cache.join("tidemill").join("venv-s3");
    let (python, ready) = (venv.join("bin/python"), venv.join("ready"));
    if !ready.exists() {
        run("making a Python environment", Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run("installing S3 clients", Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
        std::fs::write(&ready, PACKAGES.join("\n")).expect("the environment is writable");
    }
    python
}

fn credential(c: &Credential) -> serde_json::Value {
    json!({"access_key": c.access_key, "secret_key": c.secret_key, "session_token": c.session_token})
}

async fn start(objects: Objects, grants: Arc<dyn Grants>, env: &Env, tasks: &Tasks) -> String {
    let key = StaticKey {
        secret: "static-secret".to_owned(),
        subject: "ada".to_owned(),
        scopes: vec![Scope { prefix: String::new(), verbs: Verbs::ALL }],
        manage_buckets: true,
    };
    let keys = Arc::new(Keys([("AKIATEST".to_owned(), key)].into()));
    let service = s3_service(objects, grants, keys, env.clone(), Settings::default()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let own = tasks.clone();
    tasks.spawn("s3 endpoint", Kind::Essential, async move { serve(listener, service, &own).await });
    endpoint
}

/// Runs the checks named in `only`, or all. Two endpoints over one store: the second stands for the first after a restart.
async fn check(objects: Objects, folder: &Path, only: &'static [&'static str]) {
    let env = Env::system();
    let grants = Arc::new(EmbeddedGrants::new([7; 32], env.clone(), None));
    let elsewhere = EmbeddedGrants::new([8; 32], env.clone(), None);
    let scope = |verbs| vec![Scope { prefix: "jobs/j1/out".to_owned(), verbs }];
    let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
    let expired = grants.issue("j1", scope(Verbs::ALL), second).await.unwrap();

    let tasks = Tasks::new("s3-test", Shutdown::new());
    let setup = json!({
        "endpoint": start(objects.clone(), grants.clone(), &env, &tasks).await,
        "second_endpoint": start(objects, grants.clone(), &env, &tasks).await,
        "key": {"access_key": "AKIATEST", "secret_key": "static-secret"},
        "grant": credential(&grants.issue("j1", scope(Verbs::ALL), hour).await.unwrap()),
        "reader": credential(&grants.issue("j1", scope(Verbs::READ), hour).await.unwrap()),
        "writer": credential(&grants.issue("j1", scope(Verbs::WRITE), hour).await.unwrap()),
        "foreign": credential(&elsewhere.issue("j1", scope(Verbs::ALL), hour).await.unwrap()),
        "expired": credential(&expired),
        "expired_at": expired.expires_at.millis() as f64 / 1000.0,
    });
    let file = folder.join("setup.json");
    std::fs::write(&file, setup.to_string()).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3_clients.py");
    let output =
        tokio::task::spawn_blocking(move || Command::new(python()).arg(script).arg(file).args(only).output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success() && out.contains("checks passed"), "the checks failed\n{out}\n{err}");
    tasks.shutdown().drain();
    tasks.shutdown().close();
    tasks.join(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_listings_and_uploads_work_over_another_store() {
    let folder = tempfile::tempdir().unwrap();
    let only = &["check_buckets", "check_conditional_writes", "check_odd_keys", "check_multipart", "check_copy", "check_rclone"];
    check(Arc::new(object_store::memory::InMemory::new()), folder.path(), only).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_work_over_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = tidemill_embedded::Embedded::open(&folder.path().join("data"), Env::system()).unwrap();
    check(embedded.objects(), folder.path(), &[]).await;
}
