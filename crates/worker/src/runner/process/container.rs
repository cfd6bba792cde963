//! Tasks in containers: the engine's command line, and images that are kept as archives in objects.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidemill_base::{Error, Result};
use tidemill_batch::model::{ContainerSpec, FailureClass, Resources};

use super::plan::Programs;
use crate::range::OpenRange;
use crate::work::Failure;

/// Where a container sees the task's folder.
pub(super) const MOUNT: &str = "/task";
const ENGINES: [&str; 2] = ["podman", "docker"];
/// Variables that steer the engine's own client, which must be the worker's for it and the task's for the container.
const CLIENT: [&str; 6] = ["PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST"];

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

/// Ends a container whose client does not pass the signal on.
pub(super) fn kill(engine: PathBuf, name: String) {
    let run = move || {
        let killed = Command::new(engine).args(["kill", "--signal", "KILL", &name]).stdin(Stdio::null()).output();
        if let Err(e) = killed {
            tracing::warn!(container = name, error = %e, "could not kill a container");
        }
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
