//! A server for the tour alone: another process of this program, on a port that the system chooses.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidemill_base::{Error, Result};
use tidemill_client::{Client, Discovery};
use tidemill_runtime::{Stopwatch, sleep};

/// It is ready within this, or something is wrong.
const START: Duration = Duration::from_secs(30);
/// It has drained within this, or it is killed.
const STOP: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running server.
#[derive(Debug)]
pub(crate) struct PrivateServer {
    child: Child,
    data: PathBuf,
    /// Asks it as its administrator.
    pub(crate) client: Client,
}

impl PrivateServer {
    /// Starts it with up to `workers` workers and waits until it answers. `Unavailable` with the end of its log when it does not.
    pub(crate) async fn start(program: &Path, data: &Path, workers: u32, slots: u32) -> Result<Self> {
        fs::create_dir_all(data).map_err(|e| Error::from(e).context(format!("make the data folder {}", data.display())))?;
        let log = File::create(log_path(data)).map_err(|e| Error::from(e).context(log_path(data).display()))?;
        let stdout = log.try_clone()?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
        command.args(["--workers", &format!("1..{workers}"), "--slots", &slots.to_string()]);
        command.stdin(Stdio::null()).stdout(stdout).stderr(log);
        // Ctrl-C in this terminal is for the tour, which then drains the server.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|e| Error::from(e).context(format!("start {}", program.display())))?;
        let started = Stopwatch::start();
        loop {
            if let Some(client) = ready(data).await {
                return Ok(Self { child, data: data.to_owned(), client });
            }
            let ended = child.try_wait()?.map(|status| format!("it ended with {status}"));
            let late = (started.elapsed() > START).then(|| "it was not ready in time".to_owned());
            if let Some(why) = ended.or(late) {
                drop(child.kill());
                drop(child.wait());
                return Err(Error::internal(format!("the private server did not start: {why}; its log ends: {}", last_words(data))));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Drains it and waits until it has gone.
    pub(crate) async fn stop(mut self) -> Result<()> {
        // The shell's own `kill` is there wherever a shell is.
        let told = Command::new("/bin/sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        tracing::debug!(?told, "asked the private server to stop");
        let asked = Stopwatch::start();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOP {
                drop(self.child.kill());
                self.child.wait()?;
                return Err(Error::unavailable(format!("the private server did not stop; its log ends: {}", last_words(&self.data))));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

async fn ready(data: &Path) -> Option<Client> {
    let client = Discovery::default().find(Some(data)).ok()?.connect().ok()?;
    client.workers().await.ok().map(|_| client)
}

fn log_path(data: &Path) -> PathBuf {
    data.join("server.log")
}

fn last_words(data: &Path) -> String {
    let text = fs::read_to_string(log_path(data)).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().rev().filter(|l| !l.trim().is_empty()).take(3).collect();
    lines.reverse();
    crate::human::one_line(&lines.join(" | "), 600)
}
