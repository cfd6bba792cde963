//! The case study: the tour, from nothing to results, as a new user sees it.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use tidemill_runtime::Stopwatch;

use crate::mill::{program, scratch};
use crate::recorder::{Goal, Recorder, Role, Row};

const MOST_SECONDS: f64 = 60.0;

pub(crate) async fn run(recorder: &mut Recorder) -> Result<()> {
    let folder = scratch()?;
    let watch = Stopwatch::start();
    let data = folder.path().join("tour");
    let mut command = Command::new(program()?);
    let output = command.arg("--data").arg(&data).arg("tour").stdin(Stdio::null()).output()?;
    let seconds = watch.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the tour failed: {}", String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default());
    }
    text.lines().for_each(|line| eprintln!("  {line}"));
    recorder.add(Row::new(Role::Ours, "tidemill tour, from start to end", seconds, "s").goal(Goal::Most(MOST_SECONDS)));
    Ok(())
}
