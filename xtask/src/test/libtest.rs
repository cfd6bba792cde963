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

/// What a test prints when it finds that it cannot run here: `SKIPPED name: reason`. It then counts as skipped and not as passed.
const SKIP_MARK: &str = "SKIPPED ";

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
    // The harness may have begun a line about the test before the test says so.
    let reasons: Vec<String> = output.lines().filter_map(|l| l.split_once(SKIP_MARK)).map(|(_, why)| why.to_owned()).collect();
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

/// Reads what Python's unittest writes at its end: `Ran 12 tests in 3.4s`, and `OK (skipped=1)` or `FAILED (failures=1, errors=2)`.
pub(crate) fn read_unittest(output: &str, success: bool) -> Tally {
    let last = |start: &str| output.lines().rev().find_map(|l| l.strip_prefix(start));
    let ran: u64 = last("Ran ").and_then(|l| l.split(' ').next()?.parse().ok()).unwrap_or(0);
    let verdict = last("OK").or_else(|| last("FAILED")).unwrap_or("");
    let number = |word: &str| -> u64 {
        let found = verdict.split(['(', ',', ')']).find_map(|part| part.trim().strip_prefix(word)?.strip_prefix('=')?.parse().ok());
        found.unwrap_or(0)
    };
    let failed = number("failures") + number("errors") + number("unexpected successes");
    let skipped = number("skipped");
    let failed = if !success && failed == 0 { 1 } else { failed };
    Tally { passed: ran.saturating_sub(failed + skipped), failed, skipped }
}

/// Reads the counts at the end of what Node's test runner writes: `# pass 3` in one of its forms, `ℹ pass 3` in the other.
pub(crate) fn read_node(output: &str, success: bool) -> Tally {
    let count = |word: &str| -> u64 {
        let found = output
            .lines()
            .rev()
            .find_map(|l| l.trim_start_matches(['#', 'ℹ', ' ']).strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok());
        found.unwrap_or(0)
    };
    let mut tally = Tally { passed: count("pass"), failed: count("fail") + count("cancelled"), skipped: count("skipped") + count("todo") };
    if !success && tally.failed == 0 {
        tally.failed = 1;
    }
    tally
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
    fn counts_of_python_come_from_its_last_lines() {
        let tally = |text: &str, success| read_unittest(text, success);
        assert_eq!(tally("....\nRan 4 tests in 0.1s\n\nOK\n", true), Tally { passed: 4, ..Tally::default() });
        assert_eq!(tally("Ran 9 tests in 1s\n\nOK (skipped=2)\n", true), Tally { passed: 7, failed: 0, skipped: 2 });
        let bad = "Ran 9 tests in 1s\n\nFAILED (failures=1, errors=2, skipped=1, unexpected successes=1)\n";
        assert_eq!(tally(bad, false), Tally { passed: 4, failed: 4, skipped: 1 });
        assert_eq!(tally("Traceback", false), Tally::FAILED, "it has crashed");
    }

    #[test]
    fn a_test_that_says_it_could_not_run_has_not_passed() {
        let output = "---- containers stdout ----\nSKIPPED containers: neither podman nor docker is here\n\ntest result: ok. 3 passed; 0 failed; 0 ignored;\n";
        let report = read(output, true);
        assert_eq!(report.tally, Tally { passed: 2, failed: 0, skipped: 1 });
        assert_eq!(report.reasons, ["containers: neither podman nor docker is here"]);
        let alone = "test full_disk ... SKIPPED full_disk: only root mounts\nok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored;\n";
        assert_eq!(read(alone, true).tally, Tally::SKIPPED);
    }

    #[test]
    fn a_crash_is_a_failure() {
        assert_eq!(read("running 3 tests\nmemory allocation failed\n", false).tally, Tally::FAILED);
        let died_after = "test result: ok. 3 passed; 0 failed; 0 ignored;\nfree(): invalid pointer\n";
        assert_eq!(read(died_after, false).tally, Tally { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn node_counts_in_two_forms() {
        let expected = Tally { passed: 3, failed: 1, skipped: 2 };
        assert_eq!(read_node("ok 1 - submit\n# tests 6\n# pass 3\n# fail 1\n# cancelled 0\n# skipped 2\n# todo 0\n", false), expected);
        assert_eq!(read_node("✔ submit\nℹ pass 3\nℹ fail 1\nℹ cancelled 0\nℹ skipped 2\nℹ todo 0\n", false), expected);
        assert_eq!(read_node("Error: cannot find module\n", false), Tally::FAILED);
        assert_eq!(read_node("nothing ran\n", true), Tally::default());
    }
}
