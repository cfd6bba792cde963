//! The guide to job files says what is so: its examples are read by the parser, and no key is missing from it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use tidemill_base::Timestamp;
use tidemill_batch::spec::{from_toml, template::Placeholder};

const GUIDE: &str = include_str!("../../../docs/guides/job-files.md");
const SHAPES: [&str; 2] = [include_str!("../src/spec/shape.rs"), include_str!("../src/spec/shape_stage.rs")];

/// The guide's fenced blocks of TOML.
fn examples() -> Vec<&'static str> {
    GUIDE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The keys that the parser knows, from the lists in its source.
fn keys() -> BTreeSet<&'static str> {
    let strings = |text: &'static str| text.split('"').skip(1).step_by(2);
    let lists = ["const JOB: &[&str] = &[", "const STAGE: &[&str] = &["];
    lists
        .iter()
        .flat_map(|list| SHAPES.iter().find_map(|s| s.split_once(list)).into_iter())
        .flat_map(|(_, rest)| strings(rest.split(']').next().unwrap()))
        .collect()
}

#[test]
fn every_example_is_a_job() {
    let examples = examples();
    assert!(examples.len() >= 8, "only {} examples were found", examples.len());
    for example in examples {
        if let Err(e) = from_toml(example, Timestamp::from_millis(1_800_000_000_000)) {
            panic!("{e}\n{example}");
        }
    }
}

#[test]
fn every_key_and_placeholder_is_named() {
    let keys = keys();
    assert!(keys.contains("stage") && keys.contains("success-codes") && keys.len() > 30, "{keys:?}");
    let missing: Vec<_> = keys.into_iter().filter(|k| !GUIDE.contains(&format!("`{k}`"))).collect();
    assert!(missing.is_empty(), "docs/guides/job-files.md does not name {missing:?}");
    let missing: Vec<_> = Placeholder::ALL.iter().filter(|p| !GUIDE.contains(&format!("`{p}`"))).collect();
    assert!(missing.is_empty(), "docs/guides/job-files.md does not name {missing:?}");
}

#[test]
fn every_example_shows_up_in_the_keys_it_explains() {
    // A key that no example uses is a key that nobody has tried.
    let all = examples().concat();
    let unused: Vec<_> = keys()
        .into_iter()
        .filter(|k| ![format!("{k} ="), format!("[[{k}]]"), format!(".{k}]")].iter().any(|form| all.contains(form)))
        .collect();
    assert!(unused.is_empty(), "no example of docs/guides/job-files.md uses {unused:?}");
}
