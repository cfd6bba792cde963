//! The peers, each started the way its own manual says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tidemill_runtime::Stopwatch;

use crate::recorder::{Recorder, Role, Row, home};

/// From PyPI, into a virtual environment of the benches' own.
pub(crate) const PACKAGES: [&str; 4] = ["hyperqueue", "celery", "redis", "packaging"];
pub(crate) const MODULES: &str = "hyperqueue, celery, redis, packaging";
/// GNU parallel and HyperQueue's Python API take several milliseconds a task; a tenth of the tasks tells their rate.
const SLOW_SHARE: u64 = 10;

/// Runs `count` times `/bin/true` on two slots with every peer.
pub(crate) fn run(recorder: &mut Recorder, count: u64) {
    let slow = (count / SLOW_SHARE).max(100);
    let shell = [
        ("xargs -P2 -n1", format!("seq {count} | xargs -P2 -n1 /bin/true"), count),
        ("GNU parallel -j2", format!("seq {slow} | parallel --will-cite -j2 /bin/true"), slow),
    ];
    for (what, line, n) in shell {
        add(recorder, what, piped(&line, n).map(|rate| (rate, format!("{n} tasks; nothing durable"))));
    }
    let python = environment(&PACKAGES, MODULES);
    let scripts = [
        ("ProcessPoolExecutor(2) + subprocess", "pool.py", count),
        ("HyperQueue", "hq.py", slow),
        ("Celery + Redis, 2 processes", "celery_peer.py", count / 5),
    ];
    for (what, script, n) in scripts {
        let outcome = match &python {
            Ok(python) => by_script(python, script, &[&n.to_string()]).map(|(rate, note)| (rate, format!("{n} tasks; {note}"))),
            Err(e) => Err(anyhow::anyhow!("{e:#}")),
        };
        add(recorder, what, outcome);
    }
}

fn add(recorder: &mut Recorder, what: &str, outcome: Result<(f64, String)>) {
    recorder.add(match outcome {
        Ok((rate, note)) => Row::new(Role::Peer, what, rate, "tasks/s").note(&note),
        Err(e) => Row::absent(what, &format!("could not be measured: {e:#}")),
    });
}

fn piped(line: &str, count: u64) -> Result<f64> {
    let watch = Stopwatch::start();
    let output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(count as f64 / watch.elapsed().as_secs_f64())
}

/// The Python of the peers' environment, which is made on first use, with these modules of these packages.
pub(crate) fn environment(packages: &[&str], modules: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("TIDEMILL_BENCH_PEERS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set; set TIDEMILL_BENCH_PEERS")?)
            .join(".cache/tidemill/bench/peers"),
    };
    let python = folder.join("bin/python");
    if !python.exists() {
        call(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    if call(Command::new(&python).args(["-c", &format!("import {modules}")])).is_err() {
        call(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    }
    Ok(python)
}

/// Tasks a second by a script, and what it says beside.
pub(crate) fn by_script(python: &Path, script: &str, args: &[&str]) -> Result<(f64, String)> {
    let path = home().join("peers").join(script);
    let text = call(Command::new(python).arg("-B").arg(path).args(args).env("PYTHONDONTWRITEBYTECODE", "1"))?;
    let last = text.lines().last().context("it printed nothing")?;
    let answer: Value = serde_json::from_str(last).with_context(|| last.to_owned())?;
    let rate = answer["per_s"].as_f64().context("it printed no rate")?;
    Ok((rate, answer["note"].as_str().unwrap_or_default().to_owned()))
}

fn call(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}", error.lines().last().unwrap_or("it failed and said nothing"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
