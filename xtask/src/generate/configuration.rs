//! The settings' reference: keys and defaults from the program, what they mean from the docs of the types that hold them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::clean;
use crate::programs::output;

/// Where the settings are declared, a struct a section.
const SOURCES: [&str; 5] = [
    "crates/server/src/config.rs",
    "crates/server/src/config/archive.rs",
    "crates/server/src/config/drivers.rs",
    "crates/server/src/config/grid.rs",
    "crates/server/src/config/sql.rs",
];

/// A page with a table for each section.
pub(super) fn reference(program: &Path, root: &Path) -> Result<String> {
    let listing = output(clean(Command::new(program)).args(["config", "--defaults", "--output", "json"]))?;
    let mut found = BTreeMap::new();
    for file in SOURCES {
        let source = std::fs::read_to_string(root.join(file)).with_context(|| format!("read {file}"))?;
        found.extend(meanings(&source));
    }
    page(&listing, &found)
}

fn page(listing: &str, meanings: &BTreeMap<String, String>) -> Result<String> {
    let listing: Vec<Value> = serde_json::from_str(listing).context("read what `tidemill config` wrote")?;
    let mut page = String::from(
        "# Configuration\n\nMade by `cargo xtask generate` from the program and its sources.\n\n\
         The file is `tidemill.toml` in the data folder, or the one that `--config` names. A variable wins over the file, a flag over both.\n\
         `tidemill config` shows what is in force and where it comes from.\n",
    );
    let mut section = "";
    for row in &listing {
        let text = |name: &str| row[name].as_str().with_context(|| format!("a setting without `{name}`"));
        let (key, variable) = (text("key")?, text("variable")?);
        let Some(meaning) = meanings.get(key) else { bail!("{} have no docs for the setting `{key}`", SOURCES.join(" and ")) };
        let (of, name) = key.split_once('.').with_context(|| format!("the setting `{key}` has no section"))?;
        if of != section {
            page.push_str(&format!("\n## `[{of}]`\n\n| key | default | meaning | variable |\n| --- | --- | --- | --- |\n"));
            section = of;
        }
        let default = match &row["value"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let cell = |t: &str| t.replace('|', "\\|");
        page.push_str(&format!("| `{name}` | `{}` | {} | `{variable}` |\n", cell(&default), cell(meaning)));
    }
    Ok(page)
}

/// `section.key` and its docs, from structs whose own docs are `` `[section]`. ``
fn meanings(source: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut section, mut docs) = (None, Vec::new());
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if line.starts_with("#[") {
            // Attributes stand between docs and what they belong to.
        } else {
            let text = docs.join(" ");
            if line.starts_with("pub struct ") {
                section = text.strip_prefix("`[").and_then(|t| t.split(']').next()).map(str::to_owned);
            } else if let (Some(section), Some(field)) = (&section, line.strip_prefix("pub ").and_then(|l| l.split_once(':'))) {
                found.insert(format!("{section}.{}", field.0.replace('_', "-")), text);
            } else if line == "}" {
                section = None;
            }
            docs.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "/// Everything.\npub struct Config {\n    /// Limits.\n    pub limits: Limits,\n}\n\n/// `[limits]`.\n#[derive(Debug)]\n\
        pub struct Limits {\n    /// The largest body\n    /// of a request.\n    #[serde(with = \"x\")]\n    pub max_body: u64,\n}\n";

    #[test]
    fn docs_are_found_by_section_and_key() {
        let expected = [("limits.max-body".to_owned(), "The largest body of a request.".to_owned())];
        assert_eq!(meanings(SOURCE), expected.into());
    }

    #[test]
    fn a_setting_without_docs_is_named() {
        let row = |key: &str| format!(r#"[{{"key":"{key}","value":"16MiB","from":"default","variable":"TIDEMILL_X"}}]"#);
        let page_of = |key: &str| page(&row(key), &meanings(SOURCE));
        assert!(page_of("limits.max-body").unwrap().contains("| `max-body` | `16MiB` | The largest body of a request. | `TIDEMILL_X` |"));
        assert!(page_of("limits.other").unwrap_err().to_string().contains("`limits.other`"));
    }
}
