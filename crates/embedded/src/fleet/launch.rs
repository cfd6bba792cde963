//! How a member's process is started, and its log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tidemill_base::{Error, Result};
use tidemill_blocks::fleet::GroupSpec;

use super::process::MEMBER_VARIABLE;

/// Logs of members that are gone, kept for whoever wants to know why.
const OLD_LOGS: usize = 100;
/// As much of a log's last line as goes into an error.
const TAIL_BYTES: u64 = 300;

/// The command that a member runs. In the arguments and the variables' values, `{group}`, `{member}`, `{slots}` and `{memory}`
/// (bytes) stand for the group's name, the member's id and what it offers. An argument `{offers}` becomes two for each named resource:
/// `--offer` and `NAME=N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberCommand {
    /// The program's path, or its name to be found on the PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set on top of the manager's own.
    pub env: BTreeMap<String, String>,
}

impl MemberCommand {
    /// Starts a member: without input, with its log for output, and in a process group of its own, so that Ctrl-C in the manager's
    /// terminal does not reach it.
    pub(super) fn start(&self, data: &Path, spec: &GroupSpec, member: &str) -> Result<Child> {
        let log = open_log(data, member)?;
        let fill = |text: &str| expand(text, spec, member);
        Command::new(&self.program)
            .args(self.args.iter().flat_map(|a| if a == "{offers}" { offers(spec) } else { vec![fill(a)] }))
            .envs(self.env.iter().map(|(name, value)| (name, fill(value))))
            .env(MEMBER_VARIABLE, member)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|e| Error::from(e).context(format!("start {}", self.program.display())))
    }
}

fn expand(text: &str, spec: &GroupSpec, member: &str) -> String {
    text.replace("{group}", &spec.name)
        .replace("{member}", member)
        .replace("{slots}", &spec.offers.slots.to_string())
        .replace("{memory}", &spec.offers.memory.to_string())
}

fn offers(spec: &GroupSpec) -> Vec<String> {
    spec.offers.named.iter().flat_map(|(name, n)| ["--offer".to_owned(), format!("{name}={n}")]).collect()
}

pub(super) fn log_path(data: &Path, member: &str) -> PathBuf {
    data.join("workers").join(format!("{member}.log"))
}

fn open_log(data: &Path, member: &str) -> Result<File> {
    let path = log_path(data, member);
    let open = || {
        fs::create_dir_all(data.join("workers"))?;
        OpenOptions::new().create(true).append(true).open(&path)
    };
    open().map_err(|e| Error::from(e).context(format!("log {}", path.display())))
}

/// The last line that the member wrote, for an error message.
pub(super) fn last_words(data: &Path, member: &str) -> Option<String> {
    let mut file = File::open(log_path(data, member)).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Removes the oldest logs of members that are gone. Ids sort by the time of their making.
pub(super) fn prune_logs(data: &Path, present: &BTreeSet<&str>) {
    let Ok(entries) = fs::read_dir(data.join("workers")) else { return };
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut old: Vec<_> = names.filter(|n| n.strip_suffix(".log").is_some_and(|id| !present.contains(id))).collect();
    old.sort_unstable();
    let surplus = old.len().saturating_sub(OLD_LOGS);
    for name in &old[..surplus] {
        if let Err(e) = fs::remove_file(data.join("workers").join(name)) {
            tracing::warn!(log = name, error = %e, "an old worker log was not removed");
        }
    }
}
