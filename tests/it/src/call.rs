//! Calling the command line.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::outcome::Outcome;
use crate::patience::{PATIENCE, pause};
use crate::{binary, processes};

/// One call of `tidemill`, not made yet. Nothing of the caller's own settings reaches it.
#[derive(Debug)]
pub struct Call {
    command: Command,
    stdin: Option<Vec<u8>>,
}

/// A call that goes on. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    out: Option<JoinHandle<Vec<u8>>>,
    err: Option<JoinHandle<Vec<u8>>>,
}

impl Call {
    /// A call with these arguments.
    pub fn new<A: AsRef<str>>(args: &[A]) -> Self {
        let mut command = Command::new(binary());
        command.args(args.iter().map(AsRef::as_ref));
        processes::forget_settings(&mut command);
        Self { command, stdin: None }
    }

    /// A call of another program, as it is.
    pub(crate) const fn of(command: Command) -> Self {
        Self { command, stdin: None }
    }

    /// With a variable of its own.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With these variables.
    pub fn envs(mut self, variables: &[(String, String)]) -> Self {
        self.command.envs(variables.iter().cloned());
        self
    }

    /// In this folder.
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With this on standard input.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Makes the call and waits for its end.
    pub fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Makes the call and does not wait.
    pub fn start(mut self) -> Running {
        let name = format!("{:?}", self.command);
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        if let (Some(text), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            std::thread::spawn(move || drop(pipe.write_all(&text)));
        }
        let (out, err) = (child.stdout.take().map(drain), child.stderr.take().map(drain));
        Running { child, name, out, err }
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        drop(pipe.read_to_end(&mut all));
        all
    })
}

impl Running {
    /// Waits for its end.
    #[track_caller]
    pub fn wait(self) -> Outcome {
        self.wait_for(PATIENCE)
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// As [`Running::wait`], with a limit of its own.
    #[track_caller]
    pub fn wait_for(mut self, limit: Duration) -> Outcome {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if start.elapsed() > limit {
                drop(self.child.kill());
                let outcome = self.outcome(None);
                panic!("still running after {limit:?}: {outcome}");
            }
            pause(Duration::from_millis(10));
        };
        self.outcome(status.code())
    }

    fn outcome(&mut self, code: Option<i32>) -> Outcome {
        let take = |handle: &mut Option<JoinHandle<Vec<u8>>>| handle.take().and_then(|h| h.join().ok()).unwrap_or_default();
        let (bytes, err) = (take(&mut self.out), take(&mut self.err));
        let stdout = String::from_utf8_lossy(&bytes).into_owned();
        Outcome { call: self.name.clone(), code, bytes, stdout, stderr: String::from_utf8_lossy(&err).into_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
