//! What the tests need beyond Rust, and how to get it.
//!
//! Packages are installed by name through the system's package manager, where it may be used without being asked for a password.
//! What cannot be installed is named; the steps that need it say so and are skipped, or fail when they cannot do without.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::programs::{exists, find, run, shown, succeeds};
use crate::stand_ins;
use crate::workspace::{Workspace, cache};

struct Tool {
    /// Debian's packages.
    packages: &'static [&'static str],
    /// What needs it.
    purpose: &'static str,
    wanted: fn(&Workspace) -> bool,
    present: fn() -> bool,
}

const TOOLS: &[Tool] = &[
    Tool { packages: &["build-essential"], purpose: "building SQLite, zstd and ring", wanted: always, present: || exists("cc") },
    Tool {
        packages: &["python3", "python3-venv"],
        purpose: "the S3 client tests and the stand-ins",
        wanted: always,
        present: python_with_venv,
    },
    Tool { packages: &["postgresql"], purpose: "tests on PostgreSQL", wanted: always, present: stand_ins::postgres_is_here },
    Tool { packages: &["rclone"], purpose: "the S3 client tests", wanted: always, present: || exists("rclone") },
    Tool { packages: &["podman"], purpose: "container tasks", wanted: always, present: || exists("podman") || exists("docker") },
    Tool {
        packages: &["imagemagick"],
        purpose: "the media part of the tour",
        wanted: always,
        present: || exists("convert") || exists("magick"),
    },
    Tool {
        packages: &["nodejs", "npm"],
        purpose: "building the console and testing it",
        wanted: |w| w.has("console/package.json") || w.has("tests/console/package.json"),
        present: || exists("node") && exists("npm"),
    },
    Tool {
        packages: &["chromium"],
        purpose: "testing the console",
        wanted: |w| w.has("tests/console/package.json"),
        present: || chromium().is_some(),
    },
];

fn always(_: &Workspace) -> bool {
    true
}

fn python_with_venv() -> bool {
    succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"]))
}

/// The browser's program, by whichever name it has here.
pub(crate) fn chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(find)
}

/// Installs what is missing, as far as that can be done without a question.
pub(crate) fn install_missing(workspace: &Workspace) -> Result<()> {
    add_rust_components(workspace)?;
    add_cargo_deny(workspace);
    let missing: Vec<&Tool> = TOOLS.iter().filter(|t| (t.wanted)(workspace) && !(t.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(apt) = apt() else {
        for tool in &missing {
            println!("missing: {} for {}; install it by hand", tool.packages.join(" "), tool.purpose);
        }
        return Ok(());
    };
    // Lists may be old or absent; installing says so better than updating does.
    if let Err(e) = run(apt().arg("update").arg("-qq")) {
        println!("{e:#}; going on with the lists that are there");
    }
    let all: Vec<&str> = missing.iter().flat_map(|t| t.packages).copied().collect();
    if run(&mut install(apt(), &all)).is_ok() {
        return Ok(());
    }
    for tool in missing {
        let mut command = install(apt(), tool.packages);
        if run(&mut command).is_err() {
            println!("missing: {} for {}; `{}` failed", tool.packages.join(" "), tool.purpose, shown(&command));
        }
    }
    Ok(())
}

fn install(mut apt: Command, packages: &[&str]) -> Command {
    apt.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// A maker of apt-get commands, if they may be run here without a question.
fn apt() -> Option<fn() -> Command> {
    if !exists("apt-get") {
        return None;
    }
    if succeeds(Command::new("test").args(["-w", "/var/lib/dpkg"])) {
        return Some(|| Command::new("apt-get"));
    }
    let with_sudo = || {
        let mut command = Command::new("sudo");
        command.args(["-n", "apt-get"]);
        command
    };
    succeeds(Command::new("sudo").args(["-n", "true"])).then_some(with_sudo)
}

/// A minimal Rust has neither of them.
fn add_rust_components(workspace: &Workspace) -> Result<()> {
    for component in ["rustfmt", "clippy"] {
        let subcommand = if component == "rustfmt" { "fmt" } else { component };
        if !succeeds(workspace.cargo().args([subcommand, "--version"])) && exists("rustup") {
            run(workspace.program("rustup", ".").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// The program, where it was installed before or where we put it.
pub(crate) fn cargo_deny() -> Option<String> {
    if exists("cargo-deny") {
        return Some("cargo-deny".to_owned());
    }
    let ours = tools()?.join("bin/cargo-deny");
    ours.is_file().then(|| ours.to_string_lossy().into_owned())
}

/// Compiles it once, into the cache: some two minutes on two cores, which is why it is not done for every clone.
fn add_cargo_deny(workspace: &Workspace) {
    let Some(root) = tools().filter(|_| cargo_deny().is_none()) else { return };
    let mut install = workspace.cargo();
    // Without a folder of its own it would leave its build among ours.
    install.env_remove("CARGO_TARGET_DIR").args(["install", "cargo-deny", "--locked", "--quiet", "--root"]).arg(root);
    println!("installing cargo-deny, once");
    if let Err(e) = run(&mut install) {
        println!("missing: cargo-deny for the check of dependencies; {e:#}");
    }
}

/// Programs that were compiled for the tests.
fn tools() -> Option<PathBuf> {
    Some(cache()?.join("tools"))
}
