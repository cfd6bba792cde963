//! What a machine has to have for some tests; where it has not, the reason is printed.

use std::path::PathBuf;

/// Says that a test was not done, and why. Printed past the capture of the test runner, so that it is seen.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr().lock(), "SKIPPED {test}: {why}"));
}

/// The program of this name in the search path.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether this process may mount file systems, as far as its user tells.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
