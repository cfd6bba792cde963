//! Starting an engine within bounds: its folder, its user, what the system limits.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit};
use tidemill_base::{Error, Result};
use tokio::process::Command;

use crate::processes;
use crate::spec::EngineSpec;

/// Pipes get this size where the system allows it, so that both sides are woken less often.
const PIPE_BYTES: usize = 1 << 20;
/// How often to look for what an engine has left behind.
const STRAY_LOOKS: usize = 10;

/// Limits an engine that has been started and does nothing yet. Another user's is limited on its way, see [`command`].
pub(crate) fn limit(spec: &EngineSpec, engine: Option<Pid>) -> Result<()> {
    // Without a number the limits would be this process's own.
    let Some(engine) = engine else { return Err(Error::internal("an engine was started and has no process number")) };
    for (resource, _, most) in limits(spec).into_iter().filter(|_| spec.user.is_none()) {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::prlimit(Some(engine), resource, limit)
            .map_err(|e| Error::from(io::Error::from(e)).context(format!("limit the engine's {resource:?} to {most}")))?;
    }
    Ok(())
}

/// Makes the pipes wider. Narrow ones do as well, so nothing is said if the system's allowance is used up.
pub(crate) fn widen(input: Option<impl AsFd>, output: Option<impl AsFd>) {
    let _narrow = input.map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES));
    let _narrow = output.map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES));
}

/// What the system limits: the resource, the shell's letter for it, and how much.
fn limits(spec: &EngineSpec) -> Vec<(Resource, char, u64)> {
    let wanted =
        [(Resource::Core, 'c', Some(0)), (Resource::Cpu, 't', spec.limits.cpu_seconds), (Resource::Nofile, 'n', spec.limits.files)];
    wanted.into_iter().filter_map(|(resource, letter, most)| Some((resource, letter, most?))).collect()
}

/// The program; for another user behind a shell that sets the limits and becomes the program. In a container even root may not limit
/// another user's process.
pub(crate) fn command(spec: &EngineSpec, program: &Path) -> Command {
    if spec.user.is_none() {
        return Command::new(program);
    }
    let limits: String = limits(spec).into_iter().map(|(_, letter, most)| format!("ulimit -{letter} {most} && ")).collect();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{limits}exec \"$0\" \"$@\"")).arg(program);
    command
}

pub(crate) fn make_folder(spec: &EngineSpec, id: &str) -> Result<PathBuf> {
    let folder = spec.scratch.join(id);
    let made = fs::create_dir_all(&folder).and_then(|()| match spec.user {
        Some(user) => chown(&folder, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    });
    let failed = |e: io::Error| Error::from(e).context(format!("make the engine's folder `{}`", folder.display()));
    made.map_err(failed)?;
    fs::canonicalize(&folder).map_err(failed)
}

/// Ends what an engine has left behind that is no longer in its process group.
pub(crate) fn end_strays(folder: &Path) {
    let folders = BTreeSet::from([folder.to_owned()]);
    // One look finds all but what is started during it.
    let left = (0..STRAY_LOOKS).map(|_| processes::kill_of_folders(&folders).len()).take_while(|n| *n > 0).max();
    if let Some(left) = left {
        tracing::info!(folder = %folder.display(), processes = left, "ended processes that an engine had left behind");
    }
}

pub(crate) fn remove(folder: &Path) {
    if let Err(e) = fs::remove_dir_all(folder) {
        tracing::warn!(folder = %folder.display(), error = %e, "could not remove an engine's folder");
    }
}
