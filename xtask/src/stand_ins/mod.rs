//! `cargo xtask stand-ins up|down|env`: real engines and stand-ins of web services for the tests, all of them on loopback.
//!
//! PostgreSQL is the real one, from the system's packages. ministack and moto answer as S3, SQS, DynamoDB, STS and others do; they
//! are two because a driver that only fits the quirks of one would not be noticed with one alone. aiosmtpd takes mail. What is
//! missing is installed by name; what cannot be had is named, and the tests that need it are skipped.
//!
//! They outlive this program: `up` starts them or finds them running, `down` ends them. A test run holds a lock while it uses them,
//! so that another's `down` does not take them away.

mod postgres;
mod process;
mod python;
mod record;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::workspace::{Workspace, cache};
pub(crate) use postgres::present as postgres_is_here;
pub(crate) use python::client_path;
use record::{Record, Running};

/// What the services share: where they keep their things, and whether packages may be installed.
#[derive(Debug)]
struct Ground {
    folder: PathBuf,
    install: bool,
}

/// A service that can be started.
struct Service {
    name: &'static str,
    /// What tests read its address from.
    variable: &'static str,
    /// Starts it and waits until it answers. The record holds those that were started before it.
    start: fn(&Ground, &Record) -> Result<Running>,
    /// Whether it answers at the address on record.
    answers: fn(&Running) -> bool,
    stop: fn(&Running) -> Result<()>,
}

/// In the order of their starts: ministack hands its mail to the SMTP server.
const SERVICES: &[Service] = &[
    Service {
        name: "postgres",
        variable: "TIDEMILL_TEST_POSTGRES",
        start: postgres::start,
        answers: postgres::answers,
        stop: postgres::stop,
    },
    Service { name: "smtp", variable: "TIDEMILL_TEST_SMTP", start: python::start_smtp, answers: python::answers_smtp, stop: process::stop },
    Service {
        name: "ministack",
        variable: "TIDEMILL_TEST_MINISTACK",
        start: python::start_ministack,
        answers: python::answers_ministack,
        stop: process::stop,
    },
    Service { name: "moto", variable: "TIDEMILL_TEST_MOTO", start: python::start_moto, answers: python::answers_moto, stop: process::stop },
];

/// The services of a test run. Those that it has started end with it; those that ran before go on.
#[derive(Debug)]
pub(crate) struct StandIns {
    ground: Ground,
    started: Vec<&'static str>,
    /// Variables for test programs.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// What could not be had, and why.
    pub(crate) missing: Vec<String>,
    lock: Option<File>,
}

pub(crate) fn main(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["up"] => up(workspace, true),
        ["up", "--no-install"] => up(workspace, false),
        ["down"] => down(),
        ["env"] => env(),
        _ => bail!("`stand-ins` has up [--no-install], down and env"),
    }
}

fn up(workspace: &Workspace, install: bool) -> Result<ExitCode> {
    if install {
        setup::install_missing(workspace)?;
    }
    let mut stand_ins = StandIns::up(install)?;
    for (variable, value) in &stand_ins.variables {
        println!("export {variable}={value}");
    }
    for missing in &stand_ins.missing {
        println!("# missing: {missing}");
    }
    // Here they stay until `down`.
    stand_ins.started.clear();
    Ok(if stand_ins.variables.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn down() -> Result<ExitCode> {
    let ground = Ground::new(false)?;
    if ground.lock()?.try_lock().is_err() {
        bail!("a test run uses the stand-ins; they stay up until it has ended");
    }
    let mut record = Record::read(&ground.folder)?;
    let names: Vec<String> = record.services.iter().map(|r| r.name.clone()).collect();
    for name in names {
        ground.stop(&mut record, &name)?;
        println!("{name} is down");
    }
    Ok(ExitCode::SUCCESS)
}

fn env() -> Result<ExitCode> {
    let record = Record::read(&Ground::new(false)?.folder)?;
    let running: Vec<&Running> = record.services.iter().filter(|r| is_up(r)).collect();
    for r in &running {
        println!("export {}={}", r.variable, r.address);
    }
    if running.is_empty() {
        eprintln!("no stand-in is up; `cargo xtask stand-ins up` starts them");
    }
    Ok(if running.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is_up(running: &Running) -> bool {
    SERVICES.iter().find(|s| s.name == running.name).is_some_and(|s| process::is_alive(running) && (s.answers)(running))
}

impl Ground {
    fn new(install: bool) -> Result<Self> {
        let folder = cache().context("there is no cache folder: set HOME or XDG_CACHE_HOME")?.join("stand-ins");
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder, install })
    }

    /// Held shared by whoever uses the services, and alone by whoever ends them.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join("in-use.lock");
        File::options().create(true).append(true).open(&path).with_context(|| format!("open {}", path.display()))
    }

    fn stop(&self, record: &mut Record, name: &str) -> Result<()> {
        let Some(running) = record.services.iter().find(|r| r.name == name).cloned() else { return Ok(()) };
        if process::is_alive(&running)
            && let Some(service) = SERVICES.iter().find(|s| s.name == name)
        {
            (service.stop)(&running).with_context(|| format!("stop {name}"))?;
        }
        record.services.retain(|r| r.name != name);
        record.write(&self.folder)
    }
}

impl StandIns {
    /// Starts what does not run yet. A variable that is set already names somebody's own engine, and is left alone.
    pub(crate) fn up(install: bool) -> Result<Self> {
        let ground = Ground::new(install)?;
        let lock = ground.lock()?;
        lock.lock_shared().context("lock the stand-ins")?;
        let mut record = Record::read(&ground.folder)?;
        let mut up = Self { ground, started: Vec::new(), variables: Vec::new(), missing: Vec::new(), lock: Some(lock) };
        for service in SERVICES {
            if let Some(own) = std::env::var(service.variable).ok().filter(|own| !own.is_empty()) {
                up.variables.push((service.variable, own));
                continue;
            }
            match up.one(service, &mut record) {
                Ok(address) => up.variables.push((service.variable, address)),
                Err(e) => up.missing.push(format!("{}: {e:#}", service.name)),
            }
        }
        Ok(up)
    }

    fn one(&mut self, service: &Service, record: &mut Record) -> Result<String> {
        if let Some(running) = record.services.iter().find(|r| r.name == service.name && is_up(r)) {
            return Ok(running.address.clone());
        }
        // One that is there and does not answer is in the way of another.
        self.ground.stop(record, service.name)?;
        let running = (service.start)(&self.ground, record)?;
        let address = running.address.clone();
        record.services.push(running);
        record.write(&self.ground.folder)?;
        self.started.push(service.name);
        Ok(address)
    }

    /// Ends those that were started here, unless another run has come to use them.
    fn end(&mut self) -> Result<()> {
        let Some(lock) = self.lock.take().filter(|_| !self.started.is_empty()) else { return Ok(()) };
        lock.unlock().context("unlock the stand-ins")?;
        if lock.try_lock().is_err() {
            return Ok(());
        }
        let mut record = Record::read(&self.ground.folder)?;
        self.started.iter().rev().try_for_each(|name| self.ground.stop(&mut record, name))
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("xtask: {e:#}; `cargo xtask stand-ins down` tries again");
        }
    }
}

/// Where a service writes what it has to say.
fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}
