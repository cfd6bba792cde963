//! A server in a folder of its own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::call::Call;
use crate::company::Company;
use crate::engine::Engine;
use crate::http::Http;
use crate::outcome::Outcome;
use crate::patience::{eventually, same};
use crate::processes::{self, Process, processes_of};
use crate::{PATIENCE, binary};

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Local workers, `MIN..MAX`.
    pub workers: &'static str,
    /// Tasks that one of them runs at once.
    pub slots: u32,
    /// Whether it has an S3 endpoint.
    pub s3: bool,
    /// Whether it makes itself a certificate.
    pub tls: bool,
    /// Its data folder; a fresh one if not given.
    pub data: Option<PathBuf>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
    /// Whether it has company when the suite runs on engines: another manager, and workers beside its own.
    pub company: bool,
    /// Whether engines meet no faults: for tests of what comes first, since a message whose delivery is lost is out of sight for a lease.
    pub calm: bool,
}

impl Default for Options {
    fn default() -> Self {
        let (data, args, variables) = (None, Vec::new(), Vec::new());
        Self { workers: "1..2", slots: 2, s3: false, tls: false, data, args, variables, company: true, calm: false }
    }
}

/// A server with everything that it started. All of it is killed when it is dropped; its logs are printed when the test has failed.
#[derive(Debug)]
pub struct Server {
    company: Option<Box<Company>>,
    folder: TempDir,
    data: PathBuf,
    options: Options,
    listen: String,
    s3_listen: Option<String>,
    child: Option<Child>,
    url: String,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    listener.local_addr().expect("a bound socket has an address").port()
}

impl Server {
    /// Starts one and waits until it is ready. When the suite runs on engines (`TIDEMILL_IT_DRIVERS`) it works on a fresh place there, with
    /// another manager and more workers beside it; what is asked of it is then asked of either manager in turn.
    #[track_caller]
    pub fn start(mut options: Options) -> Self {
        let Some(engine) = Engine::of_suite(&options.variables, options.calm) else { return Self::start_alone(options) };
        options.variables.extend(engine.variables.iter().cloned());
        let mut server = Self::start_alone(options);
        server.company = Some(Box::new(Company::of(&server, engine, &server.options)));
        server
    }

    /// As [`Server::start`], and nothing beside it.
    #[track_caller]
    pub(crate) fn start_alone(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("tidemill-it-").tempdir().expect("a folder for the test can be made");
        let data = options.data.clone().unwrap_or_else(|| folder.path().join("data"));
        let s3_listen = options.s3.then(|| format!("127.0.0.1:{}", free_port()));
        let listen = "127.0.0.1:0".to_owned();
        let mut server = Self { company: None, folder, data, options, listen, s3_listen, child: None, url: String::new() };
        server.spawn();
        // Workers and clients keep the address, so that a restart has to come back to it.
        server.url.rsplit('/').next().unwrap_or_default().clone_into(&mut server.listen);
        server
    }

    /// The command line of `serve`.
    fn command(&self) -> Command {
        let o = &self.options;
        let mut command = Command::new(binary());
        processes::forget_settings(&mut command);
        command.arg("serve").arg("--data").arg(&self.data).args(["--listen", &self.listen, "--workers", o.workers]);
        command.args(["--slots", &o.slots.to_string()]);
        if let Some(address) = &self.s3_listen {
            command.args(["--s3-listen", address]);
        }
        if o.tls {
            command.arg("--tls-generate");
        }
        command.args(&o.args).envs(o.variables.iter().cloned());
        command
    }

    #[track_caller]
    fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let file = || File::options().create(true).append(true).open(self.log_file()).expect("a log can be opened");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(file()).stderr(file());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().expect("the server starts");
        let pid = child.id();
        self.child = Some(child);
        self.url = eventually("the server writes server.json", || {
            self.assert_runs();
            let file: Value = serde_json::from_slice(&fs::read(self.data.join("server.json")).ok()?).ok()?;
            (file["pid"] == pid).then(|| file["url"].as_str().map(str::to_owned))?
        });
        let http = self.http_here(None);
        eventually("the server is ready", || {
            self.assert_runs();
            http.send("GET", "/readyz", "text/plain", Vec::new()).ok().filter(|a| a.status == 200)
        });
    }

    #[track_caller]
    fn assert_runs(&mut self) {
        let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
        assert!(ended.is_none(), "the server ended with {ended:?}:\n{}", tail(&self.log_file(), 40));
    }

    /// Ends it as a power cut would, and returns at once. Its workers live on. Sometimes the other manager dies with it, if there is one.
    pub fn kill9(&mut self) {
        if let Some(company) = &mut self.company {
            company.perhaps_kill9();
        }
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Starts it again on the same folder and address.
    #[track_caller]
    pub fn restart(&mut self) {
        let before = self.url.clone();
        self.spawn();
        same("the address after a restart", self.url.as_str(), before.as_str());
        if let Some(company) = &mut self.company {
            company.restart();
        }
    }

    /// Whether it runs.
    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// The engines that the suite runs on, if it does.
    pub fn engine(&self) -> Option<&Engine> {
        self.company.as_ref().map(|c| &c.engine)
    }

    /// The engines that the next worker of the test is to speak to itself.
    pub(crate) fn direct(&self) -> Option<&Engine> {
        self.company.as_ref().filter(|c| c.next_is_direct()).map(|c| &c.engine)
    }

    /// Who is asked next: either manager, in turn.
    pub(crate) fn asked(&self) -> &Self {
        self.company.as_ref().and_then(|c| c.asked(self.is_up())).unwrap_or(self)
    }

    /// Asks it to stop and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process().signal(libc::SIGTERM);
        let mut child = self.child.take().expect("the server runs");
        crate::within(PATIENCE, "the server ends after SIGTERM", || child.try_wait().expect("a child can be waited for")).0
    }

    /// Its process.
    pub fn process(&self) -> Process {
        let pid = self.child.as_ref().expect("the server runs").id();
        Process::of(i32::try_from(pid).unwrap_or(0)).expect("the server lives")
    }

    /// The folder of the test: the data folder is in it, and whatever the test puts there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its S3 endpoint listens.
    pub fn s3_url(&self) -> Option<String> {
        self.s3_listen.as_ref().map(|a| format!("http://{a}"))
    }

    /// The administrator's token.
    pub fn token(&self) -> String {
        fs::read_to_string(self.data.join("admin-token")).expect("the server made a token").trim().to_owned()
    }

    /// The certificate that it made, if it did.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.options.tls.then(|| self.data.join("tls").join("cert.pem"))
    }

    /// A caller with the administrator's token.
    pub fn http(&self) -> Http {
        self.http_as(Some(&self.token()))
    }

    /// A caller with this token.
    pub fn http_as(&self, token: Option<&str>) -> Http {
        self.asked().http_here(token)
    }

    fn http_here(&self, token: Option<&str>) -> Http {
        let ca = self.ca_file().map(|f| fs::read(f).expect("the certificate can be read"));
        Http::new(&self.url, token, ca.as_deref())
    }

    /// A caller without a token.
    pub fn anonymous(&self) -> Http {
        self.http_as(None)
    }

    /// A call of the command line as a user of this machine makes it, by the data folder.
    pub fn call<A: AsRef<str>>(&self, args: &[A]) -> Call {
        let data = self.asked().data.to_string_lossy().into_owned();
        let all: Vec<&str> = ["--data", data.as_str()].into_iter().chain(args.iter().map(AsRef::as_ref)).collect();
        Call::new(&all).within(self.folder())
    }

    /// A call of the command line as a program far away makes it, by URL and token.
    pub fn call_as<A: AsRef<str>>(&self, token: &str, args: &[A]) -> Call {
        Call::new(args).env("TIDEMILL_URL", &self.asked().url).env("TIDEMILL_TOKEN", token).within(self.folder())
    }

    /// Calls the command line as the administrator, by the data folder.
    pub fn cli<A: AsRef<str>>(&self, args: &[A]) -> Outcome {
        self.call(args).run()
    }

    /// A call of a Python program with the client of this checkout, which finds the server by its data folder.
    pub fn python(&self, python: &Path, args: &[&str]) -> Call {
        let mut command = crate::python::client(python, &self.asked().data);
        command.args(args);
        Call::of(command).within(self.folder())
    }

    /// The processes of Python engines of workers on this machine, by number.
    pub fn python_engines(&self) -> Vec<Process> {
        let mut found = processes_of(self.folder());
        found.retain(|p| p.args().iter().any(|a| a == "tidemill.engine"));
        found.sort();
        found
    }

    /// Submits a job file that is given as text, and returns the job's id.
    #[track_caller]
    pub fn submit(&self, job_file: &str) -> String {
        self.call(&["batch", "submit", "-"]).stdin(job_file).run().ok().word().to_owned()
    }

    /// Submits a command without waiting for it, and returns the job's id.
    #[track_caller]
    pub fn detach(&self, args: &[&str]) -> String {
        let all: Vec<&str> = ["batch", "run", "--detach"].into_iter().chain(args.iter().copied()).collect();
        self.cli(&all).ok().word().to_owned()
    }

    /// A job as `batch show` has it.
    #[track_caller]
    pub fn job(&self, id: &str) -> Value {
        self.http().get(&format!("/api/v1/batch/jobs/{id}")).is(200).json()
    }

    /// Waits until the job has ended and returns it.
    #[track_caller]
    pub fn ended(&self, id: &str) -> Value {
        let http = self.http();
        eventually(&format!("job {id} ends"), || {
            let job = http.get(&format!("/api/v1/batch/jobs/{id}")).is(200).json();
            let over = ["succeeded", "failed", "cancelled"].iter().any(|s| job["state"] == *s);
            over.then_some(job)
        })
    }

    /// Waits until so many tasks of the job are in this state (`running`, `succeeded`...).
    #[track_caller]
    pub fn until(&self, id: &str, state: &str, least: u64) -> Value {
        let http = self.http();
        eventually(&format!("job {id} has {least} tasks {state}"), || {
            let job = http.get(&format!("/api/v1/batch/jobs/{id}")).is(200).json();
            (job["tasks"][state].as_u64()? >= least).then_some(job)
        })
    }

    /// The contents of a job's result files by name, over all tasks of its last stage. Names have to differ.
    #[track_caller]
    pub fn results(&self, id: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
        let http = self.http();
        let mut found = std::collections::BTreeMap::new();
        let mut after = String::new();
        loop {
            let list = http.get(&format!("/api/v1/batch/jobs/{id}/results?after={after}")).is(200).json();
            for file in list["files"].as_array().expect("a list of files") {
                let (name, href) = (file["name"].as_str().unwrap(), file["href"].as_str().unwrap());
                let bytes = http.get(&format!("/api/v1{href}")).is(200).bytes;
                same("the size that is listed", file["bytes"].as_u64(), Some(bytes.len() as u64));
                let twice = found.insert(name.to_owned(), bytes);
                assert!(twice.is_none(), "two results are called {name}");
            }
            match list["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return found,
            }
        }
    }

    /// The rows of a query.
    #[track_caller]
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let answer = self.http().post("/api/v1/sql", &serde_json::json!({ "sql": query })).is(200).json();
        answer["rows"].as_array().expect("rows").clone()
    }

    /// The workers that it knows of.
    #[track_caller]
    pub fn workers(&self) -> Vec<Value> {
        let list = self.http().get("/api/v1/fleet/workers").is(200).json();
        list["workers"].as_array().expect("a list of workers").clone()
    }

    /// How many large objects it keeps, wherever those are.
    pub fn objects(&self) -> usize {
        self.engine().map_or_else(|| files_below(&self.data.join("objects")), Engine::objects)
    }

    /// The processes of its local workers, by number.
    pub fn worker_processes(&self) -> Vec<Process> {
        let scratch = self.data.join("scratch").to_string_lossy().into_owned();
        let mut found = processes_of(&self.data);
        found.retain(|p| {
            let args = p.args();
            args.get(1).is_some_and(|a| a == "worker") && args.contains(&scratch)
        });
        found.sort();
        found
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// What it has logged, over all its starts.
    pub fn log(&self) -> String {
        let own = fs::read_to_string(self.log_file()).unwrap_or_default();
        own + &self.company.as_ref().and_then(|c| c.twin.as_ref()).map(Self::log).unwrap_or_default()
    }

    fn print_logs(&self) {
        let mut files = vec![self.log_file()];
        for folder in [self.folder.path().to_owned(), self.data.join("workers")] {
            let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
            files.extend(entries.filter(|p| p.extension().is_some_and(|e| e == "log") && *p != self.log_file()));
        }
        for file in files {
            println!("--- {}\n{}", file.display(), tail(&file, 60));
        }
    }
}

fn files_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { files_below(&e.path()) } else { 1 }).sum()
}

fn tail(file: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        processes::sweep(&self.data);
        processes::sweep(self.folder.path());
        if std::thread::panicking() {
            self.print_logs();
        }
    }
}
