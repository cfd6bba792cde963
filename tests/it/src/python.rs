//! Python with packages: environments that are made once, in the cache folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of the environment `name`, which holds these packages; why not, where it cannot be made.
pub fn python_with(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).ok_or("neither HOME nor XDG_CACHE_HOME is set")?;
    let cache = cache.join("tidemill");
    let venv = cache.join(format!("venv-{name}"));
    let (python, ready) = (venv.join("bin/python"), venv.join("ready"));
    let said = |e: std::io::Error| format!("{}: {e}", venv.display());
    fs::create_dir_all(&cache).map_err(said)?;
    // Tests of several programs may come at once; the lock ends with the file.
    let lock = File::create(cache.join(format!("venv-{name}.lock"))).map_err(said)?;
    lock.lock().map_err(said)?;
    if fs::read_to_string(&ready).is_ok_and(|text| text == packages.join("\n")) {
        return Ok(python);
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default())),
        Err(e) => Err(format!("{command:?}: {e}")),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    fs::write(&ready, packages.join("\n")).map_err(said)?;
    Ok(python)
}

/// The folder of this checkout.
pub fn checkout() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    folder.canonicalize().unwrap_or(folder)
}

/// A call of a Python program that uses the client of this checkout and finds the server by its data folder.
pub(crate) fn client(python: &Path, data: &Path) -> Command {
    let mut command = Command::new(python);
    crate::processes::forget_settings(&mut command);
    command.env("PYTHONPATH", checkout().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("TIDEMILL_DATA", data);
    command
}
