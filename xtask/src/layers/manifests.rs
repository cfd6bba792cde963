//! Every package inherits versions, edition, licence and lints, and takes its dependencies from the workspace's one table.

use toml::{Table, Value};

/// Keys of `[package]` that come from the workspace.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];
const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// What is wrong with the manifest of package `name`.
pub(crate) fn violations(name: &str, manifest: &str) -> Vec<String> {
    let table: Table = match manifest.parse() {
        Ok(table) => table,
        Err(e) => return vec![format!("{name}: Cargo.toml is not TOML: {e}")],
    };
    let mut found = Vec::new();
    let package = table.get("package");
    for key in INHERITED {
        if !inherits(package.and_then(|p| p.get(key))) {
            found.push(format!("{name}: write `{key}.workspace = true` under [package]"));
        }
    }
    if !inherits(table.get("lints")) {
        found.push(format!("{name}: write `workspace = true` under [lints]"));
    }
    if package.and_then(|p| p.get("description")).and_then(Value::as_str).is_none_or(str::is_empty) {
        found.push(format!("{name}: [package] needs a description"));
    }
    for_each_dependency(&table, &mut |dependency, value| {
        if !inherits(Some(value)) {
            found.push(format!("{name}: take `{dependency}` from the table in the top Cargo.toml, with `workspace = true`"));
        }
    });
    found
}

fn inherits(value: Option<&Value>) -> bool {
    value.and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true)
}

/// All kinds of dependencies, those of single targets included.
fn for_each_dependency(table: &Table, each: &mut dyn FnMut(&str, &Value)) {
    let targets = table.get("target").and_then(Value::as_table).into_iter().flat_map(|t| t.values()).filter_map(Value::as_table);
    for place in std::iter::once(table).chain(targets) {
        for kind in DEPENDENCIES {
            for (name, value) in place.get(kind).and_then(Value::as_table).into_iter().flatten() {
                each(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[package]
name = "x"
description = "An example."
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
publish.workspace = true

[lints]
workspace = true

[dependencies]
serde.workspace = true
tokio = { workspace = true, features = ["test-util"] }
"#;

    #[track_caller]
    fn refused(manifest: &str, because: &str) {
        let found = violations("x", manifest);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(because), "{found:?}");
    }

    #[test]
    fn a_manifest_that_inherits_passes() {
        assert_eq!(violations("x", GOOD), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_inherited_is_named() {
        refused(&GOOD.replace("edition.workspace = true", "edition = \"2024\""), "edition.workspace");
        refused(&GOOD.replace("license.workspace = true\n", ""), "license.workspace");
        refused(&GOOD.replace("[lints]\nworkspace = true", ""), "[lints]");
        refused(&GOOD.replace("description = \"An example.\"", ""), "description");
    }

    #[test]
    fn a_dependency_with_its_own_version_is_named() {
        refused(&GOOD.replace("serde.workspace = true", "serde = \"1\""), "`serde`");
        refused(&format!("{GOOD}\n[dev-dependencies]\nregex = {{ version = \"1\" }}\n"), "`regex`");
        refused(&format!("{GOOD}\n[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n"), "`libc`");
    }
}
