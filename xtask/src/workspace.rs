//! Where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The checkout and the folders that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// The checkout's top folder.
    pub(crate) root: PathBuf,
    /// What cargo builds into.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// `CARGO_TARGET_DIR` if set; else a folder in the user's cache, so that a fresh clone finds the dependencies that an earlier
    /// one has built.
    pub(crate) fn find() -> Result<Self> {
        // As cargo says when it runs this, since checkouts that build into one folder may share the program.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&here).parent().context("xtask lies in the workspace's top folder")?.to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => cache().map_or_else(|| root.join("target"), |cache| cache.join("target")),
        };
        Ok(Self { root, target })
    }

    /// Cargo, in the top folder, building into [`Workspace::target`].
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // What cargo says to this program it must not say to build scripts: some (ring's) are run again, and all behind them is
        // compiled again, whenever it differs from the last time.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.to_string_lossy().starts_with(p)) {
                cargo.env_remove(name);
            }
        }
        cargo
    }

    /// Any other program, in a folder below the top.
    pub(crate) fn program(&self, name: &str, folder: &str) -> Command {
        let mut command = Command::new(name);
        command.current_dir(self.root.join(folder));
        command
    }

    /// Whether the checkout has this file or folder.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

/// The folder for everything that can be made again: `$XDG_CACHE_HOME/tidemill`, by default `~/.cache/tidemill`.
pub(crate) fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("tidemill"))
}
