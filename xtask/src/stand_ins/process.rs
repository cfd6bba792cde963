//! Services as processes: started so that they outlive this program, awaited, found again, ended.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::record::Running;
use crate::programs::{Watch, shown, succeeds};

/// How long a service may take until it answers. Quiet it is a second; a machine that compiles beside it takes longer.
const READY_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long one may take to end when asked to, before it is ended.
const END_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// `wanted`, if nothing listens there, else a port that is free now.
pub(super) fn free_port(wanted: u16) -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    Ok(bound.and_then(|listener| listener.local_addr()).context("find a free port on 127.0.0.1")?.port())
}

/// Starts it in a process group of its own, with its output in `log`.
pub(super) fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("make {}", log.display()))?;
    let out = file.try_clone().with_context(|| format!("share {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(out).stderr(file).process_group(0);
    command.spawn().with_context(|| format!("`{}` does not start", shown(command)))
}

/// Waits until it answers. One that has ended, or that does not come up, is named with the end of its log.
pub(super) fn ready(child: &mut Child, log: &Path, answers: impl Fn() -> bool) -> Result<()> {
    let watch = Watch::start();
    while !answers() {
        if let Some(status) = child.try_wait().context("look after a stand-in")? {
            bail!("it ended with {status}: {}", last_words(log));
        }
        if watch.elapsed() > READY_WITHIN {
            end(child.id())?;
            bail!("it does not answer after {} s: {}", READY_WITHIN.as_secs(), last_words(log));
        }
        pause();
    }
    Ok(())
}

/// Whether the process on record is still there, and is the one that was started.
pub(super) fn is_alive(running: &Running) -> bool {
    matches!(stat(running.pid), Some(('R' | 'S' | 'D' | 'I', started)) if started == running.started)
}

/// When the process was started, in the system's own count.
pub(super) fn started(pid: u32) -> u64 {
    stat(pid).map_or(0, |(_, started)| started)
}

/// Its state and its start, by proc_pid_stat(5). The second field is a name in brackets that may itself hold blanks.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Asks it to end, and ends it when it does not.
pub(super) fn stop(running: &Running) -> Result<()> {
    signal("-TERM", running.pid)?;
    let watch = Watch::start();
    while is_alive(running) {
        if watch.elapsed() > END_WITHIN {
            return end(running.pid);
        }
        pause();
    }
    Ok(())
}

fn end(pid: u32) -> Result<()> {
    signal("-KILL", pid)
}

/// To the whole group: a service may have helpers.
fn signal(which: &str, pid: u32) -> Result<()> {
    if !succeeds(Command::new("kill").args([which, "--", &format!("-{pid}")])) && stat(pid).is_some() {
        bail!("`kill {which}` of process group {pid} failed");
    }
    Ok(())
}

/// Whether something takes connections there.
pub(super) fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN).is_ok()
}

/// Whether a GET of `path` is answered with 200.
pub(super) fn answers_http(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        // In one piece, not one for each part of the format.
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut first = [0; 12];
        stream.read_exact(&mut first)?;
        Ok(first.starts_with(b"HTTP/1.") && first.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// The end of what a service wrote.
pub(super) fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let from = lines.len().saturating_sub(3);
    format!("{} (log: {})", lines[from..].join(" | "), log.display())
}

#[expect(clippy::disallowed_methods, reason = "a build tool is not simulated, and must not depend on what it builds")]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(pid: u32) -> Running {
        let text = String::new();
        Running { name: text.clone(), variable: text.clone(), address: text.clone(), port: 0, pid, started: started(pid), data: text }
    }

    #[test]
    fn a_process_is_told_from_one_with_its_number_and_ended_with_its_helpers() {
        let log = std::env::temp_dir().join(format!("xtask-stand-in-{}.log", std::process::id()));
        let mut child = spawn(Command::new("sh").args(["-c", "echo begun; sleep 1000 & sleep 1000"]), &log).unwrap();
        let service = running(child.id());
        assert!(is_alive(&service));
        assert!(!is_alive(&Running { started: service.started + 1, ..service.clone() }));
        stop(&service).unwrap();
        assert!(!is_alive(&service));
        child.wait().unwrap();
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn one_that_ends_at_once_is_named_with_its_last_words() {
        let log = std::env::temp_dir().join(format!("xtask-ends-{}.log", std::process::id()));
        let mut child = spawn(Command::new("sh").args(["-c", "echo the port is taken >&2; exit 3"]), &log).unwrap();
        let error = ready(&mut child, &log, || false).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("the port is taken"), "{error}");
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn answers_are_told_from_refusals() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 512];
                let len = stream.read(&mut asked).unwrap();
                assert!(asked[..len].starts_with(b"GET /ready HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert!(answers_http(port, "/ready"));
        assert!(!answers_http(port, "/ready"));
        server.join().unwrap();
        assert!(!answers_http(port, "/ready") && !listens(port), "nobody listens any more");
    }
}
