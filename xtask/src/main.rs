//! Development tasks, called as `cargo xtask NAME`.
//!
//! Why a program and not scripts: what has to hold for the workspace (which crate may use which, what is generated, what a test run
//! is) is checked code with tests of its own, and it runs on a machine that has nothing but Rust.
//!
//! ```console
//! $ cargo xtask test               # everything CI runs
//! $ cargo xtask test --only unit   # one step of it
//! $ cargo xtask check-layers       # seconds, nothing is built
//! $ cargo xtask generate           # writes docs/reference
//! $ cargo xtask stand-ins up       # engines for the tests, on loopback
//! ```

mod build;
mod fuzz;
mod generate;
mod layers;
mod programs;
mod setup;
mod stand_ins;
mod test;
mod workspace;

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask TASK

  test [--only STEP[,STEP]] [--no-install] [--list]
                      run the tests; installs what is missing when it may
  check-layers [--list]
                      check which crate uses which, manifests, sizes and words
  generate [--check]  write docs/reference from the program; --check only compares
  generate drivers    test every driver and write docs/reference/drivers.md
  fuzz [--target NAME] [--minutes N] [--seed N]
                      run fuzz targets for longer than the tests do
  bench [ARGS]        run the benches (release build), peers included
  setup               install what the tests need, and nothing else
  stand-ins up [--no-install] | down | env
                      engines for the tests, on loopback: PostgreSQL, ministack, moto, aiosmtpd
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<ExitCode> {
    let Some((task, rest)) = args.split_first() else {
        eprint!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let workspace = Workspace::find()?;
    match task.as_str() {
        "test" => test::main(&workspace, rest),
        "check-layers" => layers::main(&workspace, rest),
        "generate" => generate::main(&workspace, rest),
        "fuzz" => fuzz::main(&workspace, rest),
        "bench" => bench(&workspace, rest),
        "setup" => setup::install_missing(&workspace).map(|()| ExitCode::SUCCESS),
        "stand-ins" => stand_ins::main(&workspace, rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => {
            eprintln!("xtask: there is no task `{other}`\n\n{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// Benches measure the release build of the program, so that is built first and handed over in `TIDEMILL_BIN`. They are not started by
/// cargo, which hands down a library path that the loader of every process would search: floor and peers start many.
fn bench(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    programs::run(workspace.cargo().args(["build", "--release", "--package", "tidemill", "--package", "tidemill-benches"]))?;
    let release = workspace.target.join("release");
    let mut run = Command::new(release.join("tidemill-benches"));
    run.args(args).current_dir(&workspace.root).env("TIDEMILL_BIN", release.join("tidemill")).env_remove("LD_LIBRARY_PATH");
    let of_this_crate = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_crate)) {
        run.env_remove(name);
    }
    programs::run(&mut run)?;
    Ok(ExitCode::SUCCESS)
}
