//! Stand-ins that are Python programs, each in an environment of its own below the cache folder, at a version written down here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::process::{self, answers_http, free_port, listens, ready, spawn};
use super::record::{Record, Running};
use super::{Ground, log_file};
use crate::programs::{exists, run, shown, succeeds};

/// What is installed for each, by name and version.
const MINISTACK: &str = "ministack==1.5.33";
const MOTO: &str = "moto[server]==5.2.5";
const AIOSMTPD: &str = "aiosmtpd==1.4.6";
/// What the Python client is tested with: how functions travel, a user of executors, and types.
const CLIENT: &str = "cloudpickle==3.1.2 joblib==1.6.0 mypy==2.4.1";

const MAIL_SINK: &str = include_str!("mail_sink.py");

/// With AUTH it checks signatures, policies and session tokens, as the real services do. Its root key is `test` with the secret
/// `test`; without BIND_HOST it would listen to the whole network.
pub(super) fn start_ministack(ground: &Ground, record: &Record) -> Result<Running> {
    let port = free_port(4566)?;
    let mut command = program(ground, MINISTACK, "ministack")?;
    command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string()).env("AUTH", "true");
    if let Some(smtp) = record.services.iter().find(|r| r.name == "smtp") {
        command.env("SMTP_HOST", &smtp.address);
    }
    let address = format!("http://127.0.0.1:{port}");
    start(ground, command, Running { address, port, ..named("ministack", "TIDEMILL_TEST_MINISTACK") }, answers_ministack)
}

pub(super) fn answers_ministack(running: &Running) -> bool {
    answers_http(running.port, "/_ministack/health")
}

/// Without INITIAL_NO_AUTH_ACTION_COUNT, with which it answers presigned URLs with errors: so it checks no credentials.
pub(super) fn start_moto(ground: &Ground, _: &Record) -> Result<Running> {
    let port = free_port(5001)?;
    let mut command = program(ground, MOTO, "moto_server")?;
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let address = format!("http://127.0.0.1:{port}");
    start(ground, command, Running { address, port, ..named("moto", "TIDEMILL_TEST_MOTO") }, answers_moto)
}

pub(super) fn answers_moto(running: &Running) -> bool {
    answers_http(running.port, "/moto-api/")
}

/// Keeps mail as files in the folder `mail` beside its log, from this start on.
pub(super) fn start_smtp(ground: &Ground, _: &Record) -> Result<Running> {
    let port = free_port(2525)?;
    let mail = ground.folder.join("mail");
    match std::fs::remove_dir_all(&mail) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).with_context(|| format!("empty {}", mail.display())),
        _ => {}
    }
    let script = ground.folder.join("mail_sink.py");
    std::fs::write(&script, MAIL_SINK).with_context(|| format!("write {}", script.display()))?;
    let mut command = program(ground, AIOSMTPD, "python")?;
    command.arg(&script).arg(port.to_string()).arg(mail);
    let address = format!("127.0.0.1:{port}");
    start(ground, command, Running { address, port, ..named("smtp", "TIDEMILL_TEST_SMTP") }, answers_smtp)
}

pub(super) fn answers_smtp(running: &Running) -> bool {
    listens(running.port)
}

/// The folder of a `python3` that has what the client's tests need, installed if need be. Engines that tests start find it on the path.
pub(crate) fn client_path(install: bool) -> Result<PathBuf> {
    let python = PathBuf::from(program(&Ground::new(install)?, CLIENT, "python3")?.get_program());
    python.parent().map(Path::to_owned).with_context(|| format!("{} lies in no folder", python.display()))
}

fn named(name: &str, variable: &str) -> Running {
    Running {
        name: name.to_owned(),
        variable: variable.to_owned(),
        address: String::new(),
        port: 0,
        pid: 0,
        started: 0,
        data: String::new(),
    }
}

fn start(ground: &Ground, mut command: Command, service: Running, answers: fn(&Running) -> bool) -> Result<Running> {
    // Keys of the person who runs the tests are none of its business, and one of them would become its root key.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    let log = log_file(&ground.folder, &service.name);
    let mut child = spawn(command.current_dir(&ground.folder), &log)?;
    ready(&mut child, &log, || answers(&service))?;
    Ok(Running { pid: child.id(), started: process::started(child.id()), ..service })
}

/// A program of a package, installed if need be.
fn program(ground: &Ground, package: &str, name: &str) -> Result<Command> {
    let folder = ground.folder.join("python").join(folder_name(package));
    let file = folder.join("bin").join(name);
    if !installed(&folder, &file) {
        install(ground, package, &folder)?;
    }
    if !file.is_file() {
        bail!("{package} was installed and has no program {name}");
    }
    Ok(Command::new(file))
}

/// `moto[server]==5.2.5` lives in `moto-5.2.5`: another version is another folder.
fn folder_name(packages: &str) -> String {
    let one = |package: &str| {
        let (name, version) = package.split_once("==").unwrap_or((package, ""));
        format!("{}-{version}", name.split('[').next().unwrap_or(name))
    };
    packages.split_whitespace().map(one).collect::<Vec<_>>().join("+")
}

/// Written when everything is installed, since an installation can be cut short.
fn complete(folder: &Path) -> PathBuf {
    folder.join("complete")
}

/// An environment refers to its Python by path, which an upgrade of the system may have taken away.
fn installed(folder: &Path, file: &Path) -> bool {
    complete(folder).is_file() && file.is_file() && succeeds(Command::new(folder.join("bin/python")).args(["-c", ""]))
}

fn install(ground: &Ground, package: &str, folder: &Path) -> Result<()> {
    if !ground.install {
        bail!("{package} is not installed; `cargo xtask stand-ins up` installs it");
    }
    if !exists("python3") {
        bail!("python3 is not here, which {package} needs");
    }
    println!("    installing {package}, once");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(folder);
    run(&mut venv).context("python3-venv may be missing")?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(package.split_whitespace());
    run(&mut pip).with_context(|| format!("{package} cannot be installed here (`{}`)", shown(&pip)))?;
    std::fs::write(complete(folder), package).with_context(|| format!("write into {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_a_folder() {
        assert_eq!([MINISTACK, MOTO, AIOSMTPD].map(folder_name), ["ministack-1.5.33", "moto-5.2.5", "aiosmtpd-1.4.6"]);
        assert_eq!(folder_name("a==1 b[c]==2"), "a-1+b-2");
    }

    #[test]
    fn what_is_not_installed_is_said_so() {
        let ground = Ground { folder: std::env::temp_dir().join("xtask-no-such-folder"), install: false };
        let error = program(&ground, MOTO, "moto_server").unwrap_err().to_string();
        assert_eq!(error, "moto[server]==5.2.5 is not installed; `cargo xtask stand-ins up` installs it");
    }
}
