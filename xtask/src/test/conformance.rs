//! Which driver keeps how many of its block's promises: counted from what the test programs write, and made into a page.
//!
//! Each behaviour of a suite begins with a line `CONFORMANCE block module`. The module and the package say which driver it is.

use std::collections::{BTreeMap, BTreeSet};

use super::libtest::Tally;

/// Where the page is.
pub(crate) const PAGE: &str = "docs/reference/drivers.md";

/// Drivers in the order of the page, with the packages and modules that test them. The first that fits counts; what fits none is
/// tested for other reasons than that somebody may choose it, such as the wrappers that misbehave.
const DRIVERS: &[(&str, &str, &str)] = &[
    ("in memory (tests only)", "tidemill-blocks-test", "memory"),
    ("command", "tidemill-embedded", "command"),
    ("embedded", "tidemill-embedded", ""),
    ("remote, through a manager", "tidemill-server", "remote"),
    ("postgres", "tidemill-postgres", ""),
    ("aws, on ministack", "tidemill-aws", "ministack"),
    ("aws, on moto", "tidemill-aws", "moto"),
];

/// One driver of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kept {
    tally: Tally,
    /// Why behaviours were passed over, with the behaviours.
    skipped: BTreeMap<String, BTreeSet<String>>,
}

/// Everything counted so far: by block and by place in [`DRIVERS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conformance(BTreeMap<(String, usize), Kept>);

impl Conformance {
    /// Adds what a test program of `package` wrote when run with `--show-output`.
    pub(crate) fn add(&mut self, package: &str, output: &str) {
        let ended: BTreeMap<&str, bool> = output.lines().filter_map(outcome).collect();
        for (test, said) in sections(output) {
            let Some((block, module)) = said.iter().find_map(|l| l.strip_prefix("CONFORMANCE ")?.split_once(' ')) else { continue };
            let Some(driver) = driver(package, module) else { continue };
            let kept = self.0.entry((block.to_owned(), driver)).or_default();
            let behaviour = test.rsplit("::").next().unwrap_or(test);
            match (ended.get(test), said.iter().find_map(|l| passed_over(l))) {
                (Some(true), Some(why)) => {
                    kept.tally.skipped += 1;
                    kept.skipped.entry(why.to_owned()).or_default().insert(behaviour.to_owned());
                }
                (Some(true), None) => kept.tally.passed += 1,
                _ => kept.tally.failed += 1,
            }
        }
    }

    /// Whether every driver was tested and none failed.
    pub(crate) fn is_clean(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|k| k.tally.failed == 0)
    }

    /// The page, made on the engines named.
    pub(crate) fn page(&self, engines: &str) -> String {
        let mut page = format!(
            "# Drivers\n\nMade by `cargo xtask test` from what the tests said; `cargo xtask generate drivers` makes it alone.\n\n\
             Every driver of a block runs the same suite (`crates/blocks-test/src/suites`). A behaviour that is skipped was not tested there, for\n\
             the reason below the table. Engines in this run: {engines}.\n\n\
             Two are special. Credentials of STS are checked by S3 itself, so they are tried there and not by the suite of issuers that check\n\
             their own (`crates/aws/tests/objects_grants_fleet/grants.rs`). And there is no fleet on ministack, whose Auto Scaling has no\n\
             instances; EC2 itself was never used.\n\n\
             | block | driver | passed | failed | skipped |\n| --- | --- | ---: | ---: | ---: |\n"
        );
        for ((block, driver), Kept { tally, .. }) in &self.0 {
            let name = DRIVERS[*driver].0;
            page.push_str(&format!("| {block} | {name} | {} | {} | {} |\n", tally.passed, tally.failed, tally.skipped));
        }
        let mut heading = "\n## Skipped\n\n";
        for ((block, driver), kept) in &self.0 {
            for (why, behaviours) in &kept.skipped {
                let names: Vec<String> = behaviours.iter().map(|b| format!("`{b}`")).collect();
                page.push_str(&format!("{heading}- {block}, {}: {why}: {}\n", DRIVERS[*driver].0, names.join(", ")));
                heading = "";
            }
        }
        page
    }
}

fn driver(package: &str, module: &str) -> Option<usize> {
    let fits = |of: &str| of.is_empty() || module.split("::").any(|segment| segment == of);
    DRIVERS.iter().position(|(_, of, within)| *of == package && fits(within))
}

/// `test NAME ... ok`. A test's own output may stand before the verdict, when it was written past the harness.
fn outcome(line: &str) -> Option<(&str, bool)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name, rest.ends_with("ok")))
}

/// What each test wrote.
fn sections(output: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in output.lines() {
        if let Some(test) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            found.push((test, Vec::new()));
        } else if let Some((_, said)) = found.last_mut() {
            said.push(line);
        }
    }
    found
}

/// Why the behaviour was not tested: an engine or a lie (`SKIPPED name: why`), or a capability that is not claimed.
fn passed_over(line: &str) -> Option<&str> {
    line.strip_prefix("SKIPPED ").and_then(|l| Some(l.split_once(": ")?.1)).or_else(|| line.strip_prefix("skipped: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test moto::tokens_are_checked ... ok
test moto::lists_are_ordered ... ok
test moto::puts_replace ... FAILED
test plain ... ok

successes:

---- moto::tokens_are_checked stdout ----
CONFORMANCE grants grants::moto
SKIPPED tokens_are_checked: moto checks no session token

---- moto::lists_are_ordered stdout ----
CONFORMANCE objects objects::moto

---- plain stdout ----
said something

failures:

---- moto::puts_replace stdout ----
CONFORMANCE objects objects::moto
thread 'moto::puts_replace' panicked

test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out
";

    #[test]
    fn behaviours_are_counted_by_block_and_driver() {
        let mut all = Conformance::default();
        all.add("tidemill-aws", OUTPUT);
        assert!(!all.is_clean());
        let page = all.page("moto 5");
        assert!(page.contains("| grants | aws, on moto | 0 | 0 | 1 |\n| objects | aws, on moto | 1 | 1 | 0 |\n"), "{page}");
        assert!(page.ends_with("\n## Skipped\n\n- grants, aws, on moto: moto checks no session token: `tokens_are_checked`\n"), "{page}");
    }

    #[test]
    fn only_drivers_that_one_can_choose_count() {
        let mut all = Conformance::default();
        all.add("tidemill-batch", OUTPUT);
        assert_eq!(all, Conformance::default());
        assert!(!all.is_clean(), "nothing was tested");
        assert_eq!(driver("tidemill-blocks-test", "faulty::queue"), None);
        assert_eq!(driver("tidemill-blocks-test", "memory::queue"), Some(0));
        assert_eq!(driver("tidemill-embedded", "fleet::command").map(|d| DRIVERS[d].0), Some("command"));
        assert_eq!(driver("tidemill-embedded", "queue").map(|d| DRIVERS[d].0), Some("embedded"));
    }
}
