//! `cargo xtask generate`: the parts of the documents that the program itself knows, written to `docs/reference`.
//!
//! With `--check` nothing is written; what differs is named and the task fails. So a key or a flag cannot change without its page.

mod cli;
mod configuration;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::build::{self, Artifacts};
use crate::programs::output;
use crate::workspace::Workspace;

const FOLDER: &str = "docs/reference";
/// The server's example that prints its OpenAPI document.
const OPENAPI: &str = "openapi";
/// The one that prints the page about metrics.
const METRICS: &str = "metrics";

/// A page and its text.
struct Page {
    name: &'static str,
    text: String,
}

/// What could be made, and what could not and why.
struct Pages {
    made: Vec<Page>,
    missing: Vec<String>,
}

pub(crate) fn main(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let only_check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        // It takes a run of the drivers' tests, so it is not made with the others.
        [page] if page == "drivers" => return crate::test::drivers(workspace),
        _ => bail!("`generate` has --check, or the name of the one page that is made apart: drivers"),
    };
    // What the tests build: fewer packages would select other features of shared dependencies, and build the largest a second time.
    let artifacts = build::everything(workspace)?;
    if only_check {
        check(workspace, &artifacts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = workspace.root.join(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let pages = pages(workspace, &artifacts)?;
    for page in &pages.made {
        let file = folder.join(page.name);
        std::fs::write(&file, &page.text).with_context(|| format!("write {}", file.display()))?;
        println!("{FOLDER}/{}", page.name);
    }
    for missing in pages.missing {
        println!("skipped: {missing}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares what the program says with what is committed. Answers what could not be compared.
pub(crate) fn check(workspace: &Workspace, artifacts: &Artifacts) -> Result<Vec<String>> {
    let pages = pages(workspace, artifacts)?;
    let stale = differing(&workspace.root.join(FOLDER), &pages.made);
    if !stale.is_empty() {
        bail!("{FOLDER} is not what the program says: {}; `cargo xtask generate` writes it", stale.join(", "));
    }
    for missing in &pages.missing {
        println!("    skipped: {missing}");
    }
    Ok(pages.missing)
}

fn differing(folder: &Path, pages: &[Page]) -> Vec<&'static str> {
    let committed = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    pages.iter().filter(|p| committed(p.name) != p.text).map(|p| p.name).collect()
}

fn pages(workspace: &Workspace, artifacts: &Artifacts) -> Result<Pages> {
    let tidemill = artifacts.program("tidemill").context("the build made no `tidemill`")?;
    let mut pages = Pages { made: Vec::new(), missing: Vec::new() };
    pages.made.push(Page { name: "cli.md", text: cli::reference(tidemill)? });
    pages.made.push(Page { name: "configuration.md", text: configuration::reference(tidemill, &workspace.root)? });
    match artifacts.program(OPENAPI) {
        Some(example) => pages.made.push(Page { name: "openapi.json", text: openapi(example)? }),
        None => pages.missing.push("the OpenAPI document: crates/server has no example `openapi`".to_owned()),
    }
    match artifacts.program(METRICS) {
        Some(example) => pages.made.push(Page { name: "metrics.md", text: output(&mut Command::new(example))? }),
        None => pages.missing.push("the page about metrics: crates/server has no example `metrics`".to_owned()),
    }
    Ok(pages)
}

fn openapi(example: &PathBuf) -> Result<String> {
    let text = output(&mut Command::new(example))?;
    let value: serde_json::Value = serde_json::from_str(&text).context("the OpenAPI document is not JSON")?;
    Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
}

/// Without the user's own settings, which must not show in a document.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEMILL_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/home/you").env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_differs_or_is_absent_is_named() {
        let folder = std::env::temp_dir().join(format!("xtask-generate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("same.md"), "text").unwrap();
        std::fs::write(folder.join("old.md"), "text").unwrap();
        let page = |name, text: &str| Page { name, text: text.to_owned() };
        let pages = [page("same.md", "text"), page("old.md", "new text"), page("absent.md", "text")];
        assert_eq!(differing(&folder, &pages), ["old.md", "absent.md"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
