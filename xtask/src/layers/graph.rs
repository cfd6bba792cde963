//! Who uses whom, from `cargo metadata`, held against the table of allowed arrows.

use anyhow::{Context, Result};
use serde_json::Value;

use super::arrows::{Arrow, FREE, Foreign, When};

/// A package of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest: String,
    pub(crate) uses: Vec<Use>,
}

/// A dependency as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) name: String,
    pub(crate) tests_only: bool,
    /// Part of the workspace.
    pub(crate) ours: bool,
}

/// Reads `cargo metadata --no-deps`.
pub(crate) fn read(metadata: &str) -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(metadata).context("read cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata has no packages")?;
    packages.iter().map(package).collect()
}

fn package(value: &Value) -> Result<Package> {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("metadata without `{key}`"));
    let uses = value["dependencies"].as_array().context("a package without dependencies")?;
    Ok(Package {
        name: text(value, "name")?,
        manifest: text(value, "manifest_path")?,
        uses: uses
            .iter()
            .map(|d| Ok(Use { name: text(d, "name")?, tests_only: d["kind"] == "dev", ours: d["path"].is_string() }))
            .collect::<Result<_>>()?,
    })
}

/// What is used and must not be.
pub(crate) fn violations(packages: &[Package], arrows: &[Arrow], foreign: &[Foreign]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        for used in &package.uses {
            let verdict = if used.ours { inside(package, used, arrows) } else { outside(package, used, foreign) };
            found.extend(verdict.map(|why| format!("{} uses {}: {why}", package.name, used.name)));
        }
    }
    found
}

fn inside(package: &Package, used: &Use, arrows: &[Arrow]) -> Option<String> {
    if FREE.contains(&used.name.as_str()) {
        return Some("nothing may use tests, benches or tools".to_owned());
    }
    if FREE.contains(&package.name.as_str()) {
        return None;
    }
    match arrows.iter().find(|a| a.from == package.name && a.to == used.name) {
        Some(Arrow { when: When::Tests, why, .. }) if !used.tests_only => Some(format!("only its tests may ({why})")),
        Some(_) => None,
        None => Some("no arrow allows it; what both need moves down, or xtask/src/layers/arrows.rs gets a line with the reason".to_owned()),
    }
}

fn outside(package: &Package, used: &Use, foreign: &[Foreign]) -> Option<String> {
    if used.tests_only || FREE.contains(&package.name.as_str()) {
        return None;
    }
    let rule = foreign.iter().find(|f| f.name == used.name)?;
    if rule.users.contains(&package.name.as_str()) {
        return None;
    }
    match rule.users {
        [] => Some(format!("no crate may ({})", rule.why)),
        users => Some(format!("only {} may ({})", users.join(", "), rule.why)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::arrows::{ARROWS, FOREIGN};
    use super::*;

    /// Metadata of one package that uses `uses`, as cargo writes it.
    fn found(name: &str, uses: &str) -> Vec<String> {
        let metadata = format!(r#"{{"packages":[{{"name":"{name}","manifest_path":"/w/{name}/Cargo.toml","dependencies":[{uses}]}}]}}"#);
        violations(&read(&metadata).unwrap(), ARROWS, FOREIGN)
    }

    fn ours(name: &str) -> String {
        format!(r#"{{"name":"{name}","kind":null,"path":"/w/{name}","source":null}}"#)
    }

    fn ours_in_tests(name: &str) -> String {
        format!(r#"{{"name":"{name}","kind":"dev","path":"/w/{name}","source":null}}"#)
    }

    fn theirs(name: &str, kind: &str) -> String {
        format!(r#"{{"name":"{name}","kind":{kind},"source":"registry+https://github.com/rust-lang/crates.io-index"}}"#)
    }

    #[track_caller]
    fn refused(name: &str, uses: &str, because: &str) {
        let found = found(name, uses);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].starts_with(&format!("{name} uses ")) && found[0].contains(because), "{found:?}");
    }

    #[test]
    fn allowed_arrows_pass() {
        assert!(found("tidemill-batch", &[ours("tidemill-base"), ours("tidemill-blocks")].join(",")).is_empty());
        assert!(found("tidemill-embedded", &ours_in_tests("tidemill-blocks-test")).is_empty());
        assert!(found("tidemill-query", &theirs("datafusion", "null")).is_empty());
    }

    #[test]
    fn arrows_that_point_up_or_sideways_are_refused() {
        refused("tidemill-base", &ours("tidemill-runtime"), "no arrow");
        refused("tidemill-blocks", &ours("tidemill-api"), "no arrow");
        refused("tidemill-batch", &ours("tidemill-embedded"), "no arrow");
        refused("tidemill-batch", &ours("tidemill-api"), "no arrow");
        refused("tidemill-batch", &ours("tidemill-grid"), "no arrow");
        refused("tidemill-remote", &ours("tidemill-embedded"), "no arrow");
        refused("tidemill-embedded", &ours("tidemill-batch"), "no arrow");
        refused("tidemill-client", &ours("tidemill-blocks"), "no arrow");
        refused("tidemill-worker", &ours("tidemill-embedded"), "no arrow");
        refused("tidemill-worker", &ours("tidemill-query"), "no arrow");
        refused("tidemill", &ours("tidemill-embedded"), "no arrow");
        refused("tidemill", &ours("tidemill-query"), "no arrow");
    }

    #[test]
    fn what_is_for_tests_stays_in_tests() {
        refused("tidemill-server", &ours("tidemill-blocks-test"), "only its tests may");
        refused("tidemill-client", &ours_in_tests("tidemill-server"), "no arrow");
    }

    #[test]
    fn tests_and_tools_use_anything_and_nobody_uses_them() {
        assert!(found("tidemill-sim", &[ours("tidemill-server"), theirs("anyhow", "null")].join(",")).is_empty());
        refused("tidemill-base", &ours("xtask"), "nothing may use tests");
        refused("tidemill-benches", &ours_in_tests("tidemill-it"), "nothing may use tests");
    }

    #[test]
    fn heavy_dependencies_stay_where_they_are() {
        refused("tidemill-server", &theirs("datafusion", "null"), "only tidemill-query may");
        refused("tidemill-batch", &theirs("anyhow", "null"), "no crate may");
        refused("tidemill-batch", &theirs("reqwest", "\"build\""), "only tidemill-client");
        assert!(found("tidemill-server", &theirs("reqwest", "\"dev\"")).is_empty());
    }

    #[test]
    fn every_arrow_has_a_reason_and_none_is_there_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for arrow in ARROWS {
            assert!(!arrow.why.is_empty() && seen.insert((arrow.from, arrow.to)), "{} -> {}", arrow.from, arrow.to);
        }
    }

    #[test]
    fn arrows_have_no_circle() {
        // From the bottom up: a crate's own arrows come after those of all it uses.
        fn depth(name: &str, trail: &mut Vec<String>) -> usize {
            assert!(!trail.contains(&name.to_owned()), "a circle: {trail:?} -> {name}");
            trail.push(name.to_owned());
            let below = ARROWS.iter().filter(|a| a.from == name && a.when == When::Always).map(|a| depth(a.to, trail)).max();
            trail.pop();
            below.map_or(0, |d| d + 1)
        }
        for arrow in ARROWS {
            assert!(depth(arrow.from, &mut Vec::new()) < 8);
        }
    }
}
