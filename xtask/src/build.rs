//! One build of everything, and what came out of it.
//!
//! Tests are run from the list of executables that cargo gives, not by `cargo test -p`: each `-p` selects other features of shared
//! dependencies, so that every step would build them again.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

/// An executable that holds tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestBinary {
    pub(crate) package: String,
    /// The target's name, as cargo calls it.
    pub(crate) target: String,
    /// `lib`, `bin`, `test`, `example` or `bench`.
    pub(crate) kind: String,
    /// The package's folder, where its tests run.
    pub(crate) folder: PathBuf,
    pub(crate) executable: PathBuf,
}

impl TestBinary {
    /// The command that builds and runs it alone.
    pub(crate) fn repeat(&self) -> String {
        match self.kind.as_str() {
            "lib" => format!("cargo test -p {} --lib", self.package),
            kind => format!("cargo test -p {} --{kind} {}", self.package, self.target),
        }
    }
}

/// What a build made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Artifacts {
    pub(crate) tests: Vec<TestBinary>,
    /// Programs and examples: name and file.
    pub(crate) programs: Vec<(String, PathBuf)>,
}

impl Artifacts {
    /// The file of a program or example.
    pub(crate) fn program(&self, name: &str) -> Option<&PathBuf> {
        self.programs.iter().find(|(n, _)| n == name).map(|(_, file)| file)
    }
}

/// Builds all targets of all packages in the dev profile.
pub(crate) fn everything(workspace: &Workspace) -> Result<Artifacts> {
    build(workspace, &["--workspace", "--all-targets"])
}

fn build(workspace: &Workspace, what: &[&str]) -> Result<Artifacts> {
    let mut cargo = workspace.cargo();
    cargo.arg("build").args(what).arg("--message-format=json-render-diagnostics");
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("start cargo")?;
    if !out.status.success() {
        bail!("the workspace does not build");
    }
    read(&String::from_utf8_lossy(&out.stdout))
}

fn read(messages: &str) -> Result<Artifacts> {
    let mut out = Artifacts::default();
    for line in messages.lines().filter(|l| l.starts_with('{')) {
        let message: Value = serde_json::from_str(line).with_context(|| format!("read cargo's message {line}"))?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let Some(executable) = message["executable"].as_str() else { continue };
        let target = message["target"]["name"].as_str().context("an artifact without a target")?.to_owned();
        if message["profile"]["test"] == true {
            let manifest = PathBuf::from(message["manifest_path"].as_str().context("an artifact without a manifest")?);
            let folder = manifest.parent().context("a manifest lies in a folder")?.to_owned();
            out.tests.push(TestBinary {
                package: package_name(message["package_id"].as_str().unwrap_or_default(), &folder),
                kind: message["target"]["kind"][0].as_str().unwrap_or("lib").to_owned(),
                target,
                folder,
                executable: executable.into(),
            });
        } else {
            out.programs.push((target, executable.into()));
        }
    }
    out.tests.sort_by(|a, b| (&a.package, a.kind != "lib", &a.target).cmp(&(&b.package, b.kind != "lib", &b.target)));
    Ok(out)
}

/// A package's id ends in `#name@version`, or in `#version` when the folder has the package's name.
fn package_name(id: &str, folder: &std::path::Path) -> String {
    match id.rsplit_once('#').and_then(|(_, end)| end.split_once('@')) {
        Some((name, _)) => name.to_owned(),
        None => folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"
{"reason":"compiler-artifact","package_id":"path+file:///src/crates/batch#tidemill-batch@0.1.0","manifest_path":"/src/crates/batch/Cargo.toml","target":{"kind":["test"],"name":"spec_files"},"profile":{"test":true},"executable":"/t/spec_files-1"}
{"reason":"compiler-artifact","package_id":"path+file:///src/xtask#0.1.0","manifest_path":"/src/xtask/Cargo.toml","target":{"kind":["bin"],"name":"xtask"},"profile":{"test":true},"executable":"/t/xtask-1"}
{"reason":"compiler-artifact","package_id":"path+file:///src/crates/batch#tidemill-batch@0.1.0","manifest_path":"/src/crates/batch/Cargo.toml","target":{"kind":["lib"],"name":"tidemill_batch"},"profile":{"test":true},"executable":"/t/batch-1"}
{"reason":"compiler-artifact","package_id":"path+file:///src/crates/batch#tidemill-batch@0.1.0","manifest_path":"/src/crates/batch/Cargo.toml","target":{"kind":["lib"],"name":"tidemill_batch"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","package_id":"path+file:///src/crates/cli#tidemill@0.1.0","manifest_path":"/src/crates/cli/Cargo.toml","target":{"kind":["bin"],"name":"tidemill"},"profile":{"test":false},"executable":"/t/tidemill"}
{"reason":"build-finished","success":true}
"#;

    #[test]
    fn executables_are_found_with_their_packages() {
        let found = read(MESSAGES).unwrap();
        let names: Vec<_> = found.tests.iter().map(|t| (t.package.as_str(), t.repeat())).collect();
        let expected = [
            ("tidemill-batch", "cargo test -p tidemill-batch --lib"),
            ("tidemill-batch", "cargo test -p tidemill-batch --test spec_files"),
            ("xtask", "cargo test -p xtask --bin xtask"),
        ];
        assert_eq!(names, expected.map(|(package, repeat)| (package, repeat.to_owned())));
        assert_eq!(found.program("tidemill"), Some(&PathBuf::from("/t/tidemill")));
        assert_eq!(found.tests[0].folder, PathBuf::from("/src/crates/batch"));
    }
}
