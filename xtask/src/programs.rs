//! Running other programs: with their output shown, or kept; with a limit on time.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long what a program has started may outlive it, holding its output open.
const LINGER: Duration = Duration::from_secs(5);

/// How a program ended whose output was kept.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    /// Standard output and standard error, in the order they were written.
    pub(crate) output: String,
}

/// Runs it with its output shown; an error when it does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("`{shown}` does not start"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs it and gives back what it wrote to standard output; an error when it does not succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let out = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| format!("`{shown}` does not start"))?;
    if !out.status.success() {
        bail!("`{shown}` ended with {}", out.status);
    }
    String::from_utf8(out.stdout).with_context(|| format!("`{shown}` wrote something that is not UTF-8"))
}

/// Runs it with its output kept, and ends it with all it has started when it takes longer than `limit`.
///
/// It gets a process group of its own for that. One that ends and leaves processes behind that hold its output open has not
/// succeeded: a test that leaks a server is a test that fails.
pub(crate) fn kept(command: &mut Command, limit: Duration) -> Result<Ended> {
    let shown = shown(command);
    let (mut reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("share a pipe")?).stderr(writer).process_group(0);
    let mut child = command.spawn().with_context(|| format!("`{shown}` does not start"))?;
    // The command holds the writing ends too; without this the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, chunks) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let watch = Watch::start();
    let (mut bytes, mut ended_at) = (Vec::new(), None);
    let over = loop {
        match chunks.recv_timeout(Duration::from_millis(200)) {
            Ok(chunk) => bytes.extend(chunk),
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if ended_at.is_none() && child.try_wait().with_context(|| format!("wait for `{shown}`"))?.is_some() {
            ended_at = Some(watch.elapsed());
        }
        if ended_at.is_some_and(|at| watch.elapsed() > at + LINGER) {
            break Some("it ended and left something running that it had started".to_owned());
        }
        if ended_at.is_none() && watch.elapsed() > limit {
            break Some(format!("it was still running after {} s", limit.as_secs()));
        }
    };
    if over.is_some() {
        // The whole group; `Child::kill` would leave alone what the program has started.
        Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status().context("end a program that hangs")?;
    }
    let status = child.wait().with_context(|| format!("wait for `{shown}`"))?;
    let mut output = String::from_utf8_lossy(&bytes).into_owned();
    if let Some(why) = &over {
        output.push_str(&format!("\n`{shown}` was ended: {why}\n"));
    }
    Ok(Ended { success: over.is_none() && status.success(), output })
}

/// The file of the program of this name.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Whether a program of this name can be started.
pub(crate) fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// Whether it runs and succeeds; its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name).chain(command.get_args()).map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Measures how long a step takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch(Instant);

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "a build tool is not simulated, and must not depend on what it builds")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_are_kept_in_order() {
        let ended = kept(&mut sh("echo one; echo two >&2; echo three; exit 3"), Duration::from_secs(30)).unwrap();
        assert_eq!((ended.success, ended.output.as_str()), (false, "one\ntwo\nthree\n"));
    }

    #[test]
    fn what_hangs_is_ended_with_its_children() {
        let ended = kept(&mut sh("echo begun; sleep 1000 & sleep 1000"), Duration::from_millis(300)).unwrap();
        assert!(!ended.success);
        assert!(ended.output.starts_with("begun\n"), "{}", ended.output);
        assert!(ended.output.contains("still running after"), "{}", ended.output);
    }

    #[test]
    fn what_leaves_something_running_has_not_succeeded() {
        let ended = kept(&mut sh("sleep 1000 & echo done"), Duration::from_secs(300)).unwrap();
        assert!(!ended.success);
        assert!(ended.output.starts_with("done\n") && ended.output.contains("left something running"), "{}", ended.output);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = kept(&mut Command::new("no-such-program-here"), Duration::from_secs(1)).unwrap_err();
        assert!(format!("{error:#}").contains("`no-such-program-here` does not start"), "{error:#}");
        assert!(!exists("no-such-program-here"));
        assert!(exists("sh"));
    }
}
