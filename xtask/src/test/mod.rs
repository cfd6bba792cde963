//! `cargo xtask test`: everything that has to hold, step by step, with one line at the end that says how it went.

mod conformance;
pub(crate) mod libtest;
mod steps;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::programs::Watch;
use crate::setup;
use crate::workspace::Workspace;
use libtest::Tally;
use steps::{Outcome, Run, STEPS, Step};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    only: Vec<String>,
    install: bool,
    list: bool,
}

pub(crate) fn main(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let wanted = parse(args)?;
    if wanted.list {
        for step in STEPS {
            println!("{:<10} {}", step.name, step.purpose);
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!("building into {}", workspace.target.display());
    if wanted.install && wanted.only.is_empty() {
        setup::install_missing(workspace)?;
    }
    let mut run = Run::new(workspace, wanted.install);
    let chosen: Vec<&Step> = STEPS.iter().filter(|s| wanted.only.is_empty() || wanted.only.iter().any(|o| o == s.name)).collect();
    let done: Vec<Done> = chosen.into_iter().map(|step| one(&mut run, step)).collect();
    // The engines end before the last line, whatever has failed.
    drop(run);
    Ok(summary(&done))
}

/// Tests the drivers alone and writes the page about them.
pub(crate) fn drivers(workspace: &Workspace) -> Result<ExitCode> {
    setup::install_missing(workspace)?;
    let tally = Run::new(workspace, true).drivers()?;
    println!("\n{tally}");
    Ok(if tally.failed == 0 && tally.ran() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(args: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { only: Vec::new(), install: true, list: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--no-install" => wanted.install = false,
            "--list" => wanted.list = true,
            "--only" => match args.next() {
                Some(names) => wanted.only.extend(names.split(',').map(str::to_owned)),
                None => bail!("--only needs the name of a step; --list shows them"),
            },
            other => bail!("`test` has no option `{other}`; it has --only STEP[,STEP], --no-install and --list"),
        }
    }
    if let Some(unknown) = wanted.only.iter().find(|o| STEPS.iter().all(|s| s.name != o.as_str())) {
        let names: Vec<_> = STEPS.iter().map(|s| s.name).collect();
        bail!("there is no step `{unknown}`; there are {}", names.join(", "));
    }
    Ok(wanted)
}

/// A step that was carried out or passed over.
struct Done {
    name: &'static str,
    seconds: f64,
    tally: Tally,
    /// Why it was skipped, or what went wrong.
    note: Option<String>,
}

fn one(run: &mut Run<'_>, step: &Step) -> Done {
    println!("\n==> {}: {}", step.name, step.purpose);
    let watch = Watch::start();
    let (tally, note) = match (step.body)(run) {
        Ok(Outcome::Done(tally)) => (tally, None),
        Ok(Outcome::Skipped(why)) => (Tally::SKIPPED, Some(why)),
        Err(e) => (Tally::FAILED, Some(format!("{e:#}"))),
    };
    if let Some(note) = &note {
        println!("    {}: {note}", if tally.failed > 0 { "failed" } else { "skipped" });
    }
    if tally.failed > 0 {
        println!("    repeat: cargo xtask test --only {}", step.name);
    }
    Done { name: step.name, seconds: watch.elapsed().as_secs_f64(), tally, note }
}

/// Prints the table and the last line. Bad when something failed, and when nothing was run at all.
fn summary(done: &[Done]) -> ExitCode {
    println!();
    let mut total = Tally::default();
    for d in done {
        total.add(d.tally);
        let note = d.note.as_deref().and_then(|n| n.lines().next()).map(|n| format!(" ({n})")).unwrap_or_default();
        println!("{:<10} {:>8.1} s  {}{note}", d.name, d.seconds, d.tally);
    }
    println!("\n{total}");
    if total.failed == 0 && total.ran() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn done(tally: Tally) -> Done {
        Done { name: "x", seconds: 0.0, tally, note: None }
    }

    #[test]
    fn steps_are_chosen_by_name() {
        let wanted = parse(&words("--only fmt,unit --no-install")).unwrap();
        assert_eq!(wanted, Wanted { only: vec!["fmt".into(), "unit".into()], install: false, list: false });
        let error = parse(&words("--only units")).unwrap_err().to_string();
        assert!(error.starts_with("there is no step `units`; there are fmt, layers"), "{error}");
        assert!(parse(&words("--fast")).unwrap_err().to_string().contains("`--fast`"));
        assert!(parse(&words("--only")).is_err());
    }

    #[test]
    fn a_run_is_good_only_when_something_ran_and_nothing_failed() {
        assert_eq!(summary(&[done(Tally::PASSED), done(Tally::SKIPPED)]), ExitCode::SUCCESS);
        assert_eq!(summary(&[done(Tally::PASSED), done(Tally::FAILED)]), ExitCode::FAILURE);
        assert_eq!(summary(&[done(Tally::SKIPPED)]), ExitCode::FAILURE);
        assert_eq!(summary(&[]), ExitCode::FAILURE);
    }
}
