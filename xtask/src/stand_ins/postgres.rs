//! PostgreSQL itself, from the system's packages: a cluster of its own, on loopback, that trusts whoever connects.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::process::{self, free_port, last_words, listens};
use super::record::{Record, Running};
use super::{Ground, log_file};
use crate::programs::{find, run, succeeds};

/// PostgreSQL does not run as root; Debian's package makes this user.
const USER: &str = "postgres";

/// Durability is left on, since that is what the tests are about.
pub(super) fn start(ground: &Ground, _: &Record) -> Result<Running> {
    let Some(programs) = programs() else { bail!("postgresql is not here; `apt-get install postgresql` gets it") };
    let owner = Owner::find()?;
    // A cluster belongs to one version. Debian's folder has its number for a name.
    let version = programs.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let data = owner.folder(&ground.folder).join(format!("postgres-{version}"));
    discard_unclean(&owner, &programs, &data)?;
    if !data.join("PG_VERSION").is_file() {
        let mut initdb = owner.command(&programs.join("initdb"));
        initdb.arg("-D").arg(&data).args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
        run(initdb.stdout(std::process::Stdio::null())).context("make a cluster")?;
    }
    let port = free_port(5499)?;
    // Clients of many tests at once. No socket file: its path could be too long.
    let options = format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=300");
    let log = data.join("log");
    let mut pg_ctl = owner.command(&programs.join("pg_ctl"));
    pg_ctl.arg("-D").arg(&data).arg("-l").arg(&log).args(["-s", "-w", "-t", "90", "-o", &options, "start"]);
    if !succeeds(&mut pg_ctl) {
        bail!("it does not start: {}", last_words(&log));
    }
    std::fs::write(log_file(&ground.folder, "postgres"), format!("its log is {}\n", log.display())).context("leave a note")?;
    let pid = pid(&data)?;
    Ok(Running {
        name: "postgres".to_owned(),
        variable: "TIDEMILL_TEST_POSTGRES".to_owned(),
        address: format!("postgres://{USER}@127.0.0.1:{port}/postgres"),
        port,
        pid,
        started: process::started(pid),
        data: data.to_string_lossy().into_owned(),
    })
}

/// A cluster whose server was killed is made anew: recovering it can take minutes, and nothing in it is worth keeping.
fn discard_unclean(owner: &Owner, programs: &Path, data: &Path) -> Result<()> {
    if !data.join("postmaster.pid").is_file() {
        return Ok(());
    }
    // It may run still, unknown to the record.
    succeeds(owner.command(&programs.join("pg_ctl")).arg("-D").arg(data).args(["-s", "-w", "-m", "immediate", "stop"]));
    std::fs::remove_dir_all(data).with_context(|| format!("remove {}", data.display()))
}

/// `start` has waited until it was ready; after that it is ready whenever it listens.
pub(super) fn answers(running: &Running) -> bool {
    listens(running.port)
}

pub(super) fn stop(running: &Running) -> Result<()> {
    let programs = programs().context("postgresql is not here any more")?;
    run(Owner::find()?.command(&programs.join("pg_ctl")).arg("-D").arg(&running.data).args(["-s", "-w", "-m", "fast", "stop"]))
}

/// The folder of PostgreSQL's programs: Debian's newest, or that of the one in the search path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let newest = versions.filter_map(|v| Some((v.file_name()?.to_str()?.parse::<u32>().ok()?, v.join("bin")))).max();
    let debian = newest.map(|(_, bin)| bin).filter(|bin| bin.join("initdb").is_file());
    debian.or_else(|| find("initdb")?.canonicalize().ok()?.parent().map(Path::to_owned))
}

/// Whether the programs are here.
pub(crate) fn present() -> bool {
    programs().is_some()
}

/// Who owns the cluster: whoever runs this, or for root the user of Debian's package.
#[derive(Debug)]
enum Owner {
    Myself,
    /// With the home of that user, since root's own folders are closed to it.
    Other(PathBuf),
}

impl Owner {
    fn find() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let root = status.lines().any(|l| l.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")));
        if !root {
            return Ok(Self::Myself);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let line = users
            .lines()
            .find(|l| l.starts_with(&format!("{USER}:")))
            .context("PostgreSQL does not run as root, and there is no user postgres")?;
        Ok(Self::Other(line.split(':').nth(5).context("the user postgres has no home")?.into()))
    }

    fn folder(&self, cache: &Path) -> PathBuf {
        match self {
            Self::Myself => cache.to_owned(),
            Self::Other(home) => home.join("tidemill-stand-ins"),
        }
    }

    fn command(&self, program: &Path) -> Command {
        match self {
            Self::Myself => Command::new(program),
            Self::Other(home) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(program).current_dir(home);
                command
            }
        }
    }
}

/// The first line of the file that a running server keeps.
fn pid(data: &Path) -> Result<u32> {
    let file = data.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    text.lines().next().and_then(|l| l.trim().parse().ok()).with_context(|| format!("{} begins with no number", file.display()))
}
