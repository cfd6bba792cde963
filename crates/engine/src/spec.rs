//! What an engine is started from, and within which limits.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_base::{Error, Result};

use crate::user::User;
use crate::wire;

/// A folder of static data: holiday calendars, curves, boot data, libraries. Engines share it, read-only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// What the engine asks for it by.
    pub name: String,
    /// Which version the folder holds.
    pub version: String,
    /// The folder.
    pub path: PathBuf,
}

/// An engine's program and surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSpec {
    /// The program: a path, or a name that is looked up in the given `PATH`, or the host's.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// All its variables; nothing is inherited. `PATH`, `LANG`, `HOME`, `TMPDIR` and
    /// `OMP_NUM_THREADS` (1: engines are as many as processors) are added where they are not given.
    pub env: BTreeMap<OsString, OsString>,
    /// Where each engine gets a folder of its own to work in.
    pub scratch: PathBuf,
    /// Who it runs as; `None`: whoever the host is. Needs a host that is root.
    pub user: Option<User>,
    /// Static data.
    pub packages: Vec<Package>,
    /// Further files whose change makes a new version of the engine: a script, a lock file, a folder of libraries.
    pub watched: Vec<PathBuf>,
    /// See there.
    pub limits: Limits,
}

impl EngineSpec {
    /// An engine that is the given program, in the given scratch folder.
    pub fn new(program: impl Into<PathBuf>, scratch: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            scratch: scratch.into(),
            user: None,
            packages: Vec::new(),
            watched: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// The Python engine: an interpreter, by path or name, that has the package `tidemill` installed.
    pub fn python(interpreter: impl Into<PathBuf>, scratch: impl Into<PathBuf>) -> Self {
        let args = ["-m", "tidemill.engine"].map(Into::into).into();
        Self { args, ..Self::new(interpreter, scratch) }
    }

    /// The file behind the program's name.
    pub(crate) fn find_program(&self) -> Result<PathBuf> {
        if self.program.as_os_str().as_encoded_bytes().contains(&b'/') {
            return Ok(self.program.clone());
        }
        let path = self.path();
        let found = std::env::split_paths(&path).filter(|f| f.is_absolute()).map(|f| f.join(&self.program)).find(|f| is_program(f));
        found.ok_or_else(|| {
            let (program, path) = (self.program.display(), path.to_string_lossy());
            Error::not_found(format!("the engine's program `{program}` is not in `{path}`; install it there or give its full path"))
        })
    }

    /// The `PATH` of the engine.
    pub(crate) fn path(&self) -> OsString {
        let given = self.env.get(OsStr::new("PATH")).cloned();
        given.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
    }

    /// What an engine that is started now would be. Engines of another identity are replaced.
    pub fn identity(&self) -> Result<Identity> {
        let program = self.find_program()?;
        let stamps = std::iter::once(&program).chain(&self.watched).map(|f| Stamp::of(f)).collect::<Result<_>>()?;
        Ok(Identity { spec: self.clone(), program, stamps })
    }
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What an engine is: its program, arguments, variables and packages, and the state of the files behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    spec: EngineSpec,
    pub(crate) program: PathBuf,
    stamps: Vec<Stamp>,
}

/// A file as far as it can be told apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Result<Self> {
        let m = fs::metadata(file).map_err(|e| Error::from(e).context(format!("look at the engine's file `{}`", file.display())))?;
        Ok(Self { device: m.dev(), inode: m.ino(), len: m.len(), modified: (m.mtime(), m.mtime_nsec()) })
    }
}

/// What an engine may use, and how long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the start to HELLO: booting, importing.
    pub boot: Duration,
    /// Opening a session: set-up.
    pub open: Duration,
    /// One task. `None`: no limit.
    pub task: Option<Duration>,
    /// An idle engine is asked for a sign of life after this long ...
    pub ping_every: Duration,
    /// ... and has this long to answer.
    pub ping: Duration,
    /// From the end of its input to its exit, before it is killed.
    pub exit: Duration,
    /// Resident memory of the engine and its children, bytes. `None`: no limit.
    pub memory: Option<u64>,
    /// Processor time in all, seconds, the system's `RLIMIT_CPU`. `None`: no limit.
    pub cpu_seconds: Option<u64>,
    /// Open files, `RLIMIT_NOFILE`. `None`: as the host.
    pub files: Option<u64>,
    /// Longest frame in either direction, bytes.
    pub frame_bytes: u32,
    /// Results are sent when so many bytes wait, or so much time has passed since results were last sent.
    pub flush_bytes: u32,
    /// See `flush_bytes`.
    pub flush: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(60),
            open: Duration::from_secs(600),
            task: None,
            ping_every: Duration::from_secs(10),
            ping: Duration::from_secs(30),
            exit: Duration::from_secs(5),
            memory: None,
            cpu_seconds: None,
            files: None,
            frame_bytes: wire::FRAME_BYTES,
            flush_bytes: 64 << 10,
            flush: Duration::from_millis(20),
        }
    }
}

impl Limits {
    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        const LEAST: u32 = 16 << 20;
        if self.frame_bytes < LEAST || self.flush_bytes > self.frame_bytes / 4 {
            return Err(Error::invalid(format!(
                "frames of {} bytes with {} bytes to a flush: a frame needs at least {LEAST} bytes and four times those of a flush",
                self.frame_bytes, self.flush_bytes
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("model.py");
        fs::write(&script, "x = 1").unwrap();
        let mut spec = EngineSpec::new("sh", folder.path());
        spec.watched.push(script.clone());
        let before = spec.identity().unwrap();
        assert_eq!(before, spec.identity().unwrap());
        fs::write(&script, "x = 22").unwrap();
        let after = spec.identity().unwrap();
        assert_ne!(before, after);
        spec.packages.push(Package { name: "calendars".into(), version: "2".into(), path: folder.path().into() });
        assert_ne!(after, spec.identity().unwrap());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let e = EngineSpec::new("no-such-engine", "/tmp").find_program().unwrap_err();
        assert!(e.message().contains("no-such-engine") && e.message().contains("install it"), "{e}");
    }
}
