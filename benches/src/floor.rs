//! What the machine itself allows: processes started with nothing in between, and bytes made durable one by one.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use tidemill_runtime::Stopwatch;

/// `tidemill-benches floor COUNT THREADS`: starts `/bin/true` so often on so many threads and waits for each. The standard library
/// uses `posix_spawn` for it.
pub(crate) fn main(args: &[String]) -> Result<()> {
    let [count, threads] = args else { anyhow::bail!("usage: floor COUNT THREADS") };
    let (count, threads): (u64, u64) = (count.parse()?, threads.parse()?);
    let next = AtomicU64::new(0);
    let work = || -> Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            ensure!(Command::new("/bin/true").stdin(Stdio::null()).status()?.success(), "/bin/true failed");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
    })
}

/// Processes a second of the floor, measured from outside like any peer.
pub(crate) fn spawns(count: u64) -> Result<f64> {
    let program = std::env::current_exe()?;
    let watch = Stopwatch::start();
    let status = Command::new(program).args(["floor", &count.to_string(), "2"]).status().context("the floor")?;
    ensure!(status.success(), "the floor failed");
    Ok(count as f64 / watch.elapsed().as_secs_f64())
}

/// Appends of 200 bytes a second when each is followed by `fdatasync`.
pub(crate) fn syncs(folder: &Path) -> Result<f64> {
    let mut file = File::create(folder.join("floor"))?;
    let (watch, mut done) = (Stopwatch::start(), 0_u32);
    while watch.elapsed().as_secs() < 2 {
        file.write_all(&[7; 200])?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / watch.elapsed().as_secs_f64())
}
