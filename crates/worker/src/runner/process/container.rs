//! Tasks in containers: the engine's command line, and images that are kept as archives in objects.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use tidemill_base::{Error, Result};
use tidemill_batch::model::{ContainerSpec, FailureClass, Resources};

use super::folder::remove_all;
use super::plan::Programs;
use crate::range::OpenRange;
use crate::work::Failure;

/// Where a container sees the task's folder.
pub(super) const MOUNT: &str = "/task";
const ENGINES: [&str; 2] = ["podman", "docker"];
/// How long a container may take to end before its client is killed.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(10);
const KILL_TRIES: u32 = 20;
/// Variables that steer the engine's own client, which must be the worker's for it and the task's for the container.
const CLIENT: [&str; 14] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "CONTAINER_HOST",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
];

/// The container engines on this machine.
pub(crate) fn engines() -> Vec<String> {
    let mut programs = Programs::new();
    ENGINES.iter().filter(|e| programs.find(OsStr::new(e)).is_ok()).map(ToString::to_string).collect()
}

/// The engine to use for `wanted` (empty: any).
pub(crate) fn engine(wanted: &str, programs: &mut Programs) -> Result<PathBuf, Failure> {
    let found = if wanted.is_empty() {
        ENGINES.iter().find_map(|e| programs.find(OsStr::new(e)).ok())
    } else {
        programs.find(OsStr::new(wanted)).ok()
    };
    found.ok_or_else(|| {
        let what = if wanted.is_empty() { "podman or docker" } else { wanted };
        Failure::new(FailureClass::Start, format!("the task runs in a container and the worker has no {what}; install it there"))
    })
}

/// What a container is started for.
pub(super) struct Task<'a> {
    pub(super) spec: &'a ContainerSpec,
    pub(super) image: &'a str,
    pub(super) resources: &'a Resources,
    pub(super) folder: &'a Path,
    pub(super) range: &'a OpenRange,
    pub(super) task: u64,
    pub(super) run: u64,
}

/// The engine's command line, the engine and the container's name.
pub(super) fn command(
    task: &Task<'_>,
    env: impl Iterator<Item = (OsString, OsString)>,
    args: &[OsString],
    programs: &mut Programs,
) -> Result<(Command, PathBuf, String), Failure> {
    let engine = engine(&task.spec.engine, programs)?;
    let item = &task.range.item;
    let name = format!("tidemill-{}-{}-{}-{}-{}", item.job, item.stage, task.task, task.range.epoch, task.run);
    let mut command = Command::new(&engine);
    command.args(["run", "--rm", "--name", &name, "--workdir", MOUNT]);
    let mut mount = OsString::from("type=bind,source=");
    mount.push(task.folder);
    mount.push(format!(",target={MOUNT}"));
    command.arg("--mount").arg(mount);
    if !task.spec.network {
        command.args(["--network", "none"]);
    }
    if task.resources.memory > 0 {
        command.args(["--memory", &task.resources.memory.to_string()]);
    }
    command.args(["--cpus", &task.resources.cpus.to_string()]);
    command.env_clear();
    for name in CLIENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (key, value) in env {
        // By name alone, so that no secret stands in the list of processes.
        let mut shown = key.clone();
        if CLIENT.iter().any(|c| OsStr::new(c) == key) {
            shown.push("=");
            shown.push(&value);
        } else {
            command.env(&key, &value);
        }
        command.arg("--env").arg(shown);
    }
    command.arg(task.image).args(args);
    Ok((command, engine, name))
}

/// A file that says that a container is running, for whoever comes after a worker that was killed: containers belong to their engine
/// and live on. Removed when dropped.
#[derive(Debug)]
pub(super) struct Noted(PathBuf);

impl Noted {
    /// Notes the container before it is started.
    pub(super) fn new(folder: &Path, engine: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = folder.join(name);
        fs::write(&file, engine.as_os_str().as_bytes())?;
        Ok(Self(file))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            tracing::debug!(file = %self.0.display(), error = %e, "could not remove the note of a container");
        }
    }
}

/// Ends the containers that a predecessor noted in the folder and did not see to their end.
pub(super) fn end_noted(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let engine = fs::read(entry.path()).map(OsString::from_vec);
        if let (Ok(engine), Ok(name)) = (engine, entry.file_name().into_string()) {
            tracing::warn!(container = name, "ending a container that outlived its worker");
            kill(engine.into(), name);
        }
    }
    remove_all(folder);
}

/// Ends a container. One that is only being started is tried again, for as long as [`KILL_PATIENCE`].
#[expect(clippy::disallowed_methods, reason = "a thread of its own that blocks")]
pub(super) fn kill(engine: PathBuf, name: String) {
    let run = move || {
        let mut last = None;
        for _ in 0..KILL_TRIES {
            let killed = Command::new(&engine).args(["kill", "--signal", "KILL", &name]).stdin(Stdio::null()).output();
            match killed {
                Ok(out) if out.status.success() => return,
                Ok(out) => last = Some(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
                Err(e) => last = Some(e.to_string()),
            }
            std::thread::sleep(KILL_PATIENCE / KILL_TRIES);
        }
        // Most likely it had ended by itself.
        tracing::info!(container = name, said = last, "no container was killed");
    };
    // The engine may take its time, and the watcher has others to watch.
    drop(std::thread::Builder::new().name("container-kill".into()).spawn(run));
}

/// Whether an image is the path of an archive in objects and not a reference.
pub(crate) fn is_archive(image: &str) -> bool {
    [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst"].iter().any(|end| image.ends_with(end))
}

/// Loads an image archive into the engine and says what it is called there. Blocks.
pub(crate) fn load_archive(engine: &Path, archive: &Path) -> Result<String> {
    let out = Command::new(engine).arg("load").arg("--input").arg(archive).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    let name = said.lines().rev().find_map(|l| l.split_once("Loaded image").and_then(|(_, rest)| rest.split_once(": ")));
    match name {
        Some((_, name)) if out.status.success() => Ok(name.trim().to_owned()),
        _ => Err(Error::invalid(format!(
            "`{}` does not load the image archive `{}`: {}",
            engine.display(),
            archive.display(),
            String::from_utf8_lossy(&out.stderr).trim()
        ))),
    }
}
