//! `tidemill grid python`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::{Value, json};
use tidemill_base::{Error, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{View, note};

/// Lines of a program's words that go into an error.
const TAIL: usize = 15;

/// Make the Python that local workers start engines with, in the data folder, from a requirements file. A server that was started without one
/// finds it when it starts again; later ones are found by the next engine that starts.
#[derive(Debug, Args)]
pub(crate) struct Python {
    /// What to install, as pip reads it.
    #[arg(long, short, value_name = "FILE")]
    requirements: PathBuf,
    /// A folder of wheels: nothing is fetched from a network.
    #[arg(long, value_name = "DIR")]
    wheels: Option<PathBuf>,
    /// The Python to make it from, 3.9 or later.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
}

struct Made(PathBuf);

impl Python {
    pub(crate) fn run(self, cx: &Context) -> Result<Exit> {
        let data = cx.data_folder();
        std::fs::create_dir_all(&data).map_err(|e| Error::from(e).context(format!("make the data folder {}", data.display())))?;
        let data = std::fs::canonicalize(&data).map_err(|e| Error::from(e).context(format!("find {}", data.display())))?;
        for (what, path) in [("--requirements", Some(&self.requirements)), ("--wheels", self.wheels.as_ref())] {
            if let Some(path) = path.filter(|p| !p.exists()) {
                return Err(Error::not_found(format!("{what} {}: there is no such file or folder", path.display())));
            }
        }
        self.check()?;
        let folder = data.join("pythons").join(cx.env.id("p"));
        let made = self.make(&folder);
        if made.is_err() {
            drop(std::fs::remove_dir_all(&folder));
        }
        made?;
        let program = swap(&data, &folder)?;
        cx.show(&Made(program)).map(|()| Exit::Success)
    }

    /// Says what the machine lacks before anything is made.
    fn check(&self) -> Result<()> {
        let python = self.python.display();
        let script = "import sys\nif sys.version_info < (3, 9): sys.exit('old')\nimport venv, ensurepip";
        let ended = Command::new(&self.python).args(["-I", "-c", script]).stdin(Stdio::null()).output().map_err(|e| {
            Error::not_found(format!(
                "`{python}` cannot be started; install Python 3.9 or later with its venv (on Debian: apt install python3-venv), or name one with \
                 --python"
            ))
            .with_source(e)
        })?;
        let said = String::from_utf8_lossy(&ended.stderr);
        if ended.status.success() {
            return Ok(());
        }
        if said.trim() == "old" {
            return Err(Error::invalid(format!("`{python}` is older than 3.9; name a newer one with --python")));
        }
        Err(Error::not_found(format!(
            "`{python}` lacks the modules venv and ensurepip; install them (on Debian: apt install python3-venv): {}",
            said.lines().last().unwrap_or("it said nothing")
        )))
    }

    fn make(&self, folder: &Path) -> Result<()> {
        note(&format!("making an environment in {}", folder.display()));
        run(Command::new(&self.python).args(["-m", "venv"]).arg(folder), "make the environment")?;
        let mut pip = Command::new(folder.join("bin").join("python3"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]);
        if let Some(wheels) = &self.wheels {
            pip.args(["--no-index", "--find-links"]).arg(wheels);
        }
        note(&format!("installing {}", self.requirements.display()));
        run(pip.arg("--requirement").arg(&self.requirements), "install the requirements")
    }
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let ended = command.stdin(Stdio::null()).output().map_err(|e| Error::from(e).context(what))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let lines: Vec<&str> = said.trim().lines().collect();
    let end = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Err(Error::invalid(format!("cannot {what}; nothing was changed:\n{end}")))
}

/// Puts the new environment in the place of the old one. Engines that run go on with what they have, so the one before is kept.
fn swap(data: &Path, folder: &Path) -> Result<PathBuf> {
    let (link, draft) = (data.join("python"), data.join("python.new"));
    let before = std::fs::read_link(&link).ok();
    let failed = |e: std::io::Error| Error::from(e).context(format!("put the environment at {}", link.display()));
    match std::fs::remove_file(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    std::os::unix::fs::symlink(folder, &draft).map_err(failed)?;
    std::fs::rename(&draft, &link).map_err(failed)?;
    let entries = std::fs::read_dir(data.join("pythons")).into_iter().flatten().filter_map(std::result::Result::ok);
    for old in entries.map(|e| e.path()).filter(|p| p != folder && Some(p) != before.as_ref()) {
        drop(std::fs::remove_dir_all(old));
    }
    Ok(link.join("bin").join("python3"))
}

impl View for Made {
    fn table(&self) -> String {
        format!("engines are started with {}\n", self.0.display())
    }

    fn json(&self) -> Value {
        json!({"python": self.0})
    }

    fn quiet(&self) -> String {
        self.0.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(program: &str) -> Python {
        Python { requirements: "r.txt".into(), wheels: None, python: program.into() }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_install() {
        let e = python("no-such-python").check().unwrap_err();
        assert!(e.message().contains("`no-such-python`") && e.message().contains("python3-venv"), "{e}");
        // A program that starts and lacks the modules.
        let e = python("false").check().unwrap_err();
        assert!(e.message().contains("ensurepip"), "{e}");
    }

    #[test]
    fn the_new_one_takes_the_place_and_the_one_before_is_kept() {
        let data = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = data.path().join("pythons").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            swap(data.path(), &folder).unwrap();
            std::fs::read_link(data.path().join("python")).unwrap() == folder
        };
        assert!(make("one") && make("two") && make("three"));
        let there = |name: &str| data.path().join("pythons").join(name).exists();
        assert!(!there("one") && there("two") && there("three"));
    }
}
