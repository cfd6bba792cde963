//! `cargo xtask check-layers`: the workspace keeps its shape.
//!
//! Nothing is built for it, so it can run before every commit.

mod arrows;
mod graph;
mod manifests;
mod sources;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::programs::output;
use crate::workspace::Workspace;
use arrows::{ARROWS, FOREIGN, When};

pub(crate) fn main(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    match args {
        [] => check(workspace)?,
        [flag] if flag == "--list" => list(),
        _ => bail!("`check-layers` has one option, --list"),
    }
    Ok(ExitCode::SUCCESS)
}

/// An error that names everything that is wrong.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let metadata = output(workspace.cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let packages = graph::read(&metadata)?;
    let mut found = graph::violations(&packages, ARROWS, FOREIGN);
    for package in &packages {
        let manifest = std::fs::read_to_string(&package.manifest).with_context(|| format!("read {}", package.manifest))?;
        found.extend(manifests::violations(&package.name, &manifest));
    }
    let sources = sources::read(&workspace.root)?;
    found.extend(sources.iter().flat_map(sources::violations));
    if found.is_empty() {
        println!("    {} packages and {} files keep the workspace's shape", packages.len(), sources.len());
        return Ok(());
    }
    for violation in &found {
        println!("    {violation}");
    }
    bail!("{} violations of the workspace's shape", found.len())
}

fn list() {
    for arrow in ARROWS {
        let tests = if arrow.when == When::Tests { " (tests)" } else { "" };
        println!("{:<21} -> {:<21} {}{tests}", arrow.from, arrow.to, arrow.why);
    }
    for rule in FOREIGN {
        println!("{:<21} <- {:<21} {}", rule.name, rule.users.join(", "), rule.why);
    }
}
