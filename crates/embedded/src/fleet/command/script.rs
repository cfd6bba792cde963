//! The user's script: how it is called, and what it answers.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, HumanDuration, Result};
use tidemill_blocks::fleet::GroupSpec;
use tidemill_runtime::timeout;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::super::process::Process;

/// As much of an answer as is read. A line for a member is some fifty bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// As much of the end of its complaints as goes into an error.
const MAX_COMPLAINT: usize = 600;

/// How a member is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// It may finish what it has.
    Drain,
    /// At once.
    Kill,
}

impl How {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Kill => "kill",
        }
    }
}

/// A member as the script lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Listed {
    pub(super) member: String,
    #[serde(default)]
    pub(super) state: ListedState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ListedState {
    /// It has been asked for and has no machine yet.
    Waiting,
    #[default]
    Running,
}

#[derive(Serialize)]
struct Request<'a> {
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
    #[serde(flatten)]
    offers: Option<&'a tidemill_blocks::fleet::Offers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<How>,
}

/// The script and how long a call of it may take.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) program: PathBuf,
    pub(super) limit: Duration,
}

impl Script {
    pub(super) async fn start(&self, spec: &GroupSpec, member: &str) -> Result<()> {
        let request = Request { group: &spec.name, member: Some(member), offers: Some(&spec.offers), how: None };
        self.call(&["start", &spec.name, member], &request).await.map(drop)
    }

    pub(super) async fn stop(&self, group: &str, member: &str, how: How) -> Result<()> {
        let request = Request { group, member: Some(member), offers: None, how: Some(how) };
        self.call(&["stop", group, member, how.as_str()], &request).await.map(drop)
    }

    pub(super) async fn list(&self, group: &str) -> Result<Vec<Listed>> {
        let answer = self.call(&["list", group], &Request { group, member: None, offers: None, how: None }).await?;
        parse(&answer).map_err(|e| e.context(format!("`{} list {group}`", self.program.display())))
    }

    /// Runs it with its own arguments, without a shell in between, and gives back what it wrote to its standard output.
    async fn call(&self, args: &[&str], request: &Request<'_>) -> Result<Vec<u8>> {
        let shown = format!("`{} {}`", self.program.display(), args.join(" "));
        let mut line = serde_json::to_vec(request).map_err(|e| Error::internal(format!("{shown}: no request")).with_source(e))?;
        line.push(b'\n');
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| not_started(&self.program, e))?;
        let group = child.id().map(Process::of);
        let ended = timeout(self.limit, &shown, talk(&mut child, &line)).await;
        let Ok(ended) = ended else {
            // With whatever it has started and waits for.
            if let Some(group) = group {
                group.kill();
            }
            let limit = HumanDuration(self.limit);
            return Err(Error::unavailable(format!(
                "{shown} has not ended after {limit}, or something that it left running holds its output open; it was ended"
            )));
        };
        let (status, out, complaint) = ended.map_err(|e| Error::from(e).context(&shown))?;
        if status.success() {
            return Ok(out);
        }
        Err(Error::unavailable(format!("{shown} ended with {status}: {}", end_of(&complaint))))
    }
}

fn not_started(program: &Path, e: std::io::Error) -> Error {
    let advice = "fleet scripts are programs: give the whole path, and make it executable (chmod +x)";
    Error::from(e).context(format!("`{}` does not start; {advice}", program.display()))
}

/// Hands it the request and takes what it says until it has ended and closed its output.
async fn talk(child: &mut Child, line: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(line).await {
            // It need not read what its arguments say already.
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => return Err(e),
            _ => {}
        }
    }
    let (out, complaint) = (child.stdout.take(), child.stderr.take());
    let (out, complaint) = tokio::try_join!(read(out), read(complaint))?;
    Ok((child.wait().await?, out, complaint))
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MAX_ANSWER).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// One member a line, as JSON.
fn parse(answer: &[u8]) -> Result<Vec<Listed>> {
    let text = std::str::from_utf8(answer).map_err(|e| Error::invalid("its answer is not UTF-8").with_source(e))?;
    let one = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            let example = r#"{"member":"w-1","state":"running"}"#;
            Error::invalid(format!("line {} of its answer, `{}`, is not a member such as {example}", number + 1, line.escape_debug()))
                .with_source(e)
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(one).collect()
}

/// The last lines of its complaints, on one line.
fn end_of(complaint: &[u8]) -> String {
    let from = complaint.len().saturating_sub(MAX_COMPLAINT);
    let text = String::from_utf8_lossy(&complaint[from..]);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    if lines.is_empty() { "it said nothing on its standard error".to_owned() } else { lines.join(" | ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_member_a_line() {
        let found = parse(b"{\"member\":\"w-1\"}\n\n{\"member\":\"w-2\",\"state\":\"waiting\",\"node\":\"n7\"}\n").unwrap();
        let expected = [("w-1", ListedState::Running), ("w-2", ListedState::Waiting)];
        assert_eq!(found, expected.map(|(member, state)| Listed { member: member.into(), state }));
        assert_eq!(parse(b"").unwrap(), []);
        for bad in [&b"w-1\n"[..], b"{\"member\":\"w-1\",\"state\":\"asleep\"}", b"{}", b"\xff"] {
            let e = parse(bad).unwrap_err();
            assert_eq!(e.kind(), tidemill_base::ErrorKind::Invalid);
        }
        assert!(parse(b"{\"member\":\"w-1\"}\nsqueue: error\n").unwrap_err().message().contains("line 2"));
    }

    #[test]
    fn requests_say_what_a_member_offers() {
        let offers = tidemill_blocks::fleet::Offers { slots: 2, memory: 1024, named: [("gpu".to_owned(), 1)].into() };
        let request = Request { group: "g", member: Some("w-1"), offers: Some(&offers), how: None };
        let expected = r#"{"group":"g","member":"w-1","slots":2,"memory":1024,"named":{"gpu":1}}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), expected);
        let request = Request { group: "g", member: Some("w-1"), offers: None, how: Some(How::Drain) };
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"group":"g","member":"w-1","how":"drain"}"#);
    }

    #[test]
    fn complaints_are_cut_to_their_end() {
        assert_eq!(end_of(b"sbatch: error: no partition\n\n"), "sbatch: error: no partition");
        assert!(end_of(b" \n").contains("said nothing"));
        assert_eq!(end_of(&[b'x'; 10_000]).len(), MAX_COMPLAINT);
    }
}
