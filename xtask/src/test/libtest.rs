//! Reads what a test program of Rust's standard harness writes.

/// How many tests ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// How many were run at all.
    pub(crate) fn ran(self) -> u64 {
        self.passed + self.failed
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What a test prints, at the beginning of a line, when it finds that it cannot run here. It then counts as skipped and not as
/// passed; the rest of the line is the reason.
const SKIP_MARK: &str = "skipped: ";

/// A test program's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Why tests did not run, as they say it themselves.
    pub(crate) reasons: Vec<String>,
}

/// Reads the output of a program run with `--show-output`. `success` is how the program ended: one that ends badly without saying
/// that a test failed has crashed, and that counts as a failure.
pub(crate) fn read(output: &str, success: bool) -> Report {
    let mut tally = Tally::default();
    for line in output.lines() {
        if let Some(counts) = line.strip_prefix("test result: ") {
            tally.add(Tally { passed: count(counts, " passed"), failed: count(counts, " failed"), skipped: count(counts, " ignored") });
        }
    }
    let reasons: Vec<String> = output.lines().filter_map(|l| l.strip_prefix(SKIP_MARK)).map(str::to_owned).collect();
    let moved = tally.passed.min(reasons.len() as u64);
    tally.passed -= moved;
    tally.skipped += moved;
    if !success && tally.failed == 0 {
        tally.failed = 1;
    }
    Report { tally, reasons }
}

/// The number before `what`.
fn count(text: &str, what: &str) -> u64 {
    let Some((before, _)) = text.split_once(what) else { return 0 };
    before.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The last line of the form `N passed, N failed, N skipped`, from a program that counts its own tests.
pub(crate) fn read_summary(output: &str) -> Option<Tally> {
    output.lines().rev().find_map(|line| {
        let mut parts = line.trim().split(", ");
        let mut next = |word: &str| parts.next()?.strip_suffix(word)?.trim().parse().ok();
        let (passed, failed, skipped) = (next("passed")?, next("failed")?, next("skipped")?);
        Some(Tally { passed, failed, skipped })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_from_the_result_line() {
        let output = "running 4 tests\ntest a ... ok\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.1s\n";
        assert_eq!(read(output, false).tally, Tally { passed: 2, failed: 1, skipped: 1 });
    }

    #[test]
    fn a_test_that_says_it_could_not_run_has_not_passed() {
        let output =
            "---- containers stdout ----\nskipped: neither podman nor docker is here\n\ntest result: ok. 3 passed; 0 failed; 0 ignored;\n";
        let report = read(output, true);
        assert_eq!(report.tally, Tally { passed: 2, failed: 0, skipped: 1 });
        assert_eq!(report.reasons, ["neither podman nor docker is here"]);
    }

    #[test]
    fn a_crash_is_a_failure() {
        assert_eq!(read("running 3 tests\nmemory allocation failed\n", false).tally, Tally::FAILED);
        let died_after = "test result: ok. 3 passed; 0 failed; 0 ignored;\nfree(): invalid pointer\n";
        assert_eq!(read(died_after, false).tally, Tally { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_program_may_count_for_itself() {
        let output = "submit: ok\n3 passed, 1 failed, 2 skipped\nbye\n";
        assert_eq!(read_summary(output), Some(Tally { passed: 3, failed: 1, skipped: 2 }));
        assert_eq!(read_summary("all fine\n"), None);
        let tally = Tally { passed: 5, failed: 0, skipped: 1 };
        assert_eq!(read_summary(&tally.to_string()), Some(tally));
    }
}
