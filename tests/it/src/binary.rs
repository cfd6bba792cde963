//! Which binary is tested.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `tidemill` binary: the one that `TIDEMILL_BIN` names, else the workspace's, brought up to date once for all tests.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("TIDEMILL_BIN") {
        Some(named) => {
            let path = PathBuf::from(named);
            assert!(path.is_file(), "TIDEMILL_BIN={}: there is no such file", path.display());
            path
        }
        None => build(),
    })
}

/// A test binary lies in `<target>/<profile>/deps`; the program beside that folder is the one of the same profile.
fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("a test lies in <target>/<profile>/deps");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "tidemill", "--bin", "tidemill"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.arg("--target-dir").arg(profile.parent().expect("a profile's folder has a parent"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "`cargo build --package tidemill` failed; build it, or name a binary with TIDEMILL_BIN");
    profile.join("tidemill")
}
