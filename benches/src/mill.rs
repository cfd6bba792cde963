//! A private server with its own data folder, started and stopped by a bench.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tidemill_api::JobDetail;
use tidemill_client::{Client, Discovery, is_final};
use tidemill_runtime::{Stopwatch, sleep};

use crate::memory;

/// The variable by which a server and its workers are known.
const MARK: &str = "TIDEMILL_BENCH_MARK";
/// How long a server may take to be ready, and a worker to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program to measure.
pub(crate) fn program() -> Result<PathBuf> {
    let path = std::env::var_os("TIDEMILL_BIN").context("TIDEMILL_BIN is not set; run `cargo xtask bench`")?;
    let path = PathBuf::from(path);
    ensure!(path.is_file(), "TIDEMILL_BIN is {}, which is not there; run `cargo build --release`", path.display());
    Ok(path)
}

/// A fresh folder on the disk to be measured.
pub(crate) fn scratch() -> Result<TempDir> {
    let base = std::env::var_os("TIDEMILL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    std::fs::create_dir_all(&base)?;
    tempfile::Builder::new().prefix("tidemill-bench-").tempdir_in(&base).with_context(|| base.display().to_string())
}

/// What a server keeps its things in.
pub(crate) enum Where {
    /// Its data folder.
    Folder,
    /// A PostgreSQL database.
    Postgres { url: String },
    /// SQS, DynamoDB and S3, with the ledger in a database.
    Aws { url: String, endpoint: String },
}

impl Where {
    /// The server's configuration file. `mark` keeps servers that share an engine apart.
    fn config(&self, mark: &str) -> String {
        let mark = mark.replace('-', "_");
        match self {
            Self::Folder => String::new(),
            Self::Postgres { url } => {
                format!("[drivers]\ndefault = \"postgres\"\n[postgres]\nurl = \"{url}\"\nschema = \"bench_{mark}\"\n")
            }
            Self::Aws { url, endpoint } => format!(
                "[drivers]\ndefault = \"aws\"\ngrants = \"postgres\"\nfleet = \"local\"\n\
                 [postgres]\nurl = \"{url}\"\nschema = \"bench_{mark}\"\n\
                 [aws]\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\nprefix = \"bench{short}\"\nbucket = \"bench{short}\"\n",
                short = mark.replace('_', ""),
            ),
        }
    }
}

/// A running server. Dropping it ends it and its workers.
pub(crate) struct Mill {
    data: TempDir,
    args: Vec<String>,
    /// What its environment has beside.
    vars: Vec<(String, String)>,
    port: u16,
    child: Child,
    pub(crate) client: Client,
}

impl Mill {
    /// Starts a server with these local workers of `slots` slots each, and waits until it and the fewest workers are ready.
    pub(crate) async fn start(workers: u32, slots: u32) -> Result<Self> {
        Self::start_on(&Where::Folder, workers, slots).await
    }

    /// The same, with its blocks on engines, which are made ready first.
    pub(crate) async fn start_on(place: &Where, workers: u32, slots: u32) -> Result<Self> {
        Self::start_in(place, workers, slots, Vec::new()).await
    }

    /// The same on its data folder, with these variables, which its workers inherit.
    pub(crate) async fn start_with(workers: u32, slots: u32, vars: Vec<(String, String)>) -> Result<Self> {
        Self::start_in(&Where::Folder, workers, slots, vars).await
    }

    async fn start_in(place: &Where, workers: u32, slots: u32, mut vars: Vec<(String, String)>) -> Result<Self> {
        let data = scratch()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // The bench asks more often than a person; nothing else is set.
        let args = [
            "serve",
            "--data",
            &data.path().to_string_lossy(),
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--workers",
            &format!("{workers}..{workers}"),
            "--slots",
            &slots.to_string(),
            "--set",
            "limits.requests-per-second=0",
        ]
        .map(str::to_owned)
        .to_vec();
        let mark = format!("{port}-{}", std::process::id());
        let config = place.config(&mark);
        if !config.is_empty() {
            std::fs::write(data.path().join("tidemill.toml"), config)?;
            make_ready(data.path())?;
        }
        vars.push((MARK.to_owned(), mark));
        let child = launch(data.path(), &args, &vars)?;
        let client = wait_ready(data.path(), port).await.inspect_err(|_| show_log(data.path()))?;
        let mill = Self { data, args, vars, port, child, client };
        mill.wait_for_workers(workers as usize).await?;
        Ok(mill)
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// The server's counters, as Prometheus reads them.
    pub(crate) async fn metrics(&self) -> Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer of /metrics has no body")?;
        ensure!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "/metrics answered {head}");
        Ok(body.to_owned())
    }

    pub(crate) fn manager(&self) -> u32 {
        self.child.id()
    }

    /// Process numbers of the workers that live.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let mark = self.vars.iter().find(|(name, _)| name == MARK).map_or("", |(_, mark)| mark);
        memory::processes(&format!("{MARK}={mark}"), "worker")
    }

    /// Waits until so many workers that live are ready.
    pub(crate) async fn wait_for_workers(&self, count: usize) -> Result<()> {
        let watch = Stopwatch::start();
        loop {
            let ready = self.client.workers().await.map(|l| l.workers.iter().filter(|w| w.state == "ready").count()).unwrap_or(0);
            if ready >= count && self.workers().len() >= count {
                return Ok(());
            }
            if watch.elapsed() > PATIENCE {
                show_log(self.data());
                bail!("{ready} of {count} workers are ready after {PATIENCE:?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9` of the manager, and a new one at once. Returns how long it took to be ready.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let watch = Stopwatch::start();
        self.child = launch(self.data.path(), &self.args, &self.vars)?;
        wait_answer(&self.client).await.inspect_err(|_| show_log(self.data.path()))?;
        Ok(watch.elapsed())
    }

    /// Submits a job and waits for its end, asking every `pause`.
    pub(crate) async fn run(&self, job: Value, pause: Duration) -> Result<JobDetail> {
        let id = self.client.submit(job, None).await?.id;
        self.end_of(&id, pause).await
    }

    /// Waits for a job's end.
    pub(crate) async fn end_of(&self, id: &str, pause: Duration) -> Result<JobDetail> {
        loop {
            let job = self.client.job(id).await?;
            if is_final(&job.state) {
                return Ok(job);
            }
            sleep(pause).await;
        }
    }

    /// The first row of an answer in SQL.
    pub(crate) async fn sql(&self, sql: &str) -> Result<serde_json::Map<String, Value>> {
        let mut answer = self.client.sql(sql).await.with_context(|| sql.to_owned())?;
        ensure!(!answer.rows.is_empty(), "no rows: {sql}");
        Ok(answer.rows.swap_remove(0))
    }
}

impl Drop for Mill {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for pid in self.workers() {
            drop(kill(pid));
        }
    }
}

/// `kill -9`.
pub(crate) fn kill(pid: u32) -> Result<()> {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "process {pid} could not be killed");
    Ok(())
}

/// Makes buckets, queues and tables.
fn make_ready(data: &Path) -> Result<()> {
    let mut command = program_without_settings()?;
    let output = command.args(["check", "--create", "--data", &data.to_string_lossy()]).output()?;
    ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the caller's shell has set must not change what is measured.
fn program_without_settings() -> Result<Command> {
    let mut command = Command::new(program()?);
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("TIDEMILL_")) {
        command.env_remove(name);
    }
    // The stand-in's one account, unless the caller has another.
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        if std::env::var_os(name).is_none() {
            command.env(name, "test");
        }
    }
    Ok(command)
}

fn launch(data: &Path, args: &[String], vars: &[(String, String)]) -> Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log"))?;
    let mut command = program_without_settings()?;
    command.args(args).envs(vars.iter().cloned()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("start the server")
}

async fn wait_ready(data: &Path, port: u16) -> Result<Client> {
    let watch = Stopwatch::start();
    let found = loop {
        match Discovery::default().find(Some(data)) {
            Ok(found) if found.url.ends_with(&port.to_string()) => break found,
            _ if watch.elapsed() > PATIENCE => bail!("the server has not written its address after {PATIENCE:?}"),
            _ => sleep(Duration::from_millis(10)).await,
        }
    };
    let client = found.connect()?;
    wait_answer(&client).await?;
    Ok(client)
}

async fn wait_answer(client: &Client) -> Result<()> {
    let watch = Stopwatch::start();
    loop {
        match client.overview().await {
            Ok(_) => return Ok(()),
            Err(e) if watch.elapsed() > PATIENCE => return Err(e).context("the server does not answer"),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// The end of the server's log, for whoever has to find out.
fn show_log(data: &Path) {
    let text = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(15)..] {
        eprintln!("  server: {line}");
    }
}
