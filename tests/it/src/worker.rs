//! Workers that a test starts beside those of the server.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::patience::eventually;
use crate::processes::{self, Process};
use crate::{Server, binary};

/// A worker of its own process group. It and its tasks are killed when it is dropped.
#[derive(Debug)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// Its process.
    pub process: Process,
    child: Child,
    scratch: PathBuf,
    log: PathBuf,
}

impl Worker {
    /// Starts a worker for the server and waits until the server lists it. `args` are added to its command line.
    pub fn start(server: &Server, id: &str, args: &[&str]) -> Self {
        let scratch = server.folder().join("outside").join(id);
        Self::start_in(server, id, scratch, args)
    }

    /// As [`Worker::start`], with its folders of tasks in `scratch`.
    pub fn start_in(server: &Server, id: &str, scratch: PathBuf, args: &[&str]) -> Self {
        Self::start_with(server, id, scratch, args, &[])
    }

    /// As [`Worker::start_in`], with these variables.
    pub fn start_with(server: &Server, id: &str, scratch: PathBuf, args: &[&str], variables: &[(String, String)]) -> Self {
        if let Some(engine) = server.direct() {
            let all = [engine.variables.as_slice(), variables].concat();
            return Self::start_on_engines_in(server, id, scratch, args, &all);
        }
        let mut reach: Vec<OsString> = ["--manager", server.url(), "--token-file"].map(OsString::from).into();
        reach.push(server.data().join("worker-token").into());
        if let Some(ca) = server.ca_file() {
            reach.extend(["--ca".into(), ca.into()]);
        }
        reach.extend(args.iter().map(OsString::from));
        Self::spawn(server, id, scratch, &reach, variables)
    }

    /// Starts a worker that speaks to the engines in these variables and to no manager, and waits until the server lists it.
    pub fn start_on_engines(server: &Server, id: &str, args: &[&str], variables: &[(String, String)]) -> Self {
        let scratch = server.folder().join("outside").join(id);
        Self::start_on_engines_in(server, id, scratch, args, variables)
    }

    /// As [`Worker::start_on_engines`], with its folders of tasks in `scratch`.
    pub(crate) fn start_on_engines_in(server: &Server, id: &str, scratch: PathBuf, args: &[&str], variables: &[(String, String)]) -> Self {
        let all: Vec<OsString> = std::iter::once("--drivers").chain(args.iter().copied()).map(OsString::from).collect();
        Self::spawn(server, id, scratch, &all, variables)
    }

    fn spawn(server: &Server, id: &str, scratch: PathBuf, args: &[OsString], variables: &[(String, String)]) -> Self {
        fs::create_dir_all(&scratch).expect("a folder for the worker can be made");
        let log = server.folder().join(format!("worker-{id}.log"));
        let file = || File::options().create(true).append(true).open(&log).expect("a log can be opened");
        let mut command = Command::new(binary());
        processes::forget_settings(&mut command);
        command.args(["worker", "--id", id, "--scratch"]).arg(&scratch).args(args).envs(variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(file()).stderr(file());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().expect("a worker starts");
        let process = Process::of(i32::try_from(child.id()).unwrap_or(0)).expect("the worker has just been started");
        let worker = Self { id: id.to_owned(), process, child, scratch, log };
        eventually(&format!("worker {id} is listed"), || server.workers().iter().any(|w| w["id"] == id).then_some(()));
        worker
    }

    /// Waits for its end after a signal and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        eventually("the worker ends", || self.child.try_wait().expect("a child can be waited for")).code()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        processes::sweep(&self.scratch);
    }
}
