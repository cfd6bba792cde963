//! `[grid]`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, HumanDuration, Result};

use super::{DatabaseUrl, seconds};

/// `[grid]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GridSection {
    /// The Python of local workers' engines, such as `tidemill grid python` makes; empty: that one if it is in the data folder, else the
    /// first `python3` on the path.
    pub python: PathBuf,
    /// Who local workers' engines run as: a name, or numbers as in `1000:1000`; empty: whoever the server is. Needs a server that is root, and a
    /// data folder that the user can enter.
    pub engine_user: String,
    /// Databases that tasks may be made from, each a `[[grid.source]]` with `name`, `url` and, where they differ, `ca` and
    /// `statement-timeout`. Give each a user of its own that may read what its queries need and nothing else.
    pub source: Vec<SourceSection>,
}

/// `[[grid.source]]`: a database that tasks may be made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceSection {
    /// What calls name it by.
    pub name: String,
    /// `postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full`. Never shown with its password.
    pub url: DatabaseUrl,
    /// File of the certificates in PEM that the database's is checked against; empty: the web's authorities, where `sslmode` asks for a check.
    #[serde(default)]
    pub ca: PathBuf,
    /// The longest that the database may work on a portion of rows.
    #[serde(default = "statement_timeout")]
    pub statement_timeout: HumanDuration,
}

fn statement_timeout() -> HumanDuration {
    seconds(300)
}

impl GridSection {
    /// The Python that local workers are told to use: the one that is set, or the one in the data folder.
    pub fn python(&self, data: &std::path::Path) -> Option<PathBuf> {
        if !self.python.as_os_str().is_empty() {
            return Some(self.python.clone());
        }
        Some(data.join("python").join("bin").join("python3")).filter(|file| file.exists())
    }

    pub(super) fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for source in &self.source {
            let name = &source.name;
            if name.is_empty() || name.len() > 40 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
                let shown = name.escape_debug();
                return Err(Error::invalid(format!("grid.source: name `{shown}` is not 1 to 40 of letters, digits, - and _")));
            }
            if !names.insert(name) {
                return Err(Error::invalid(format!("grid.source: `{name}` is there twice; give each its own name")));
            }
            if !["postgres://", "postgresql://"].iter().any(|scheme| source.url.expose().starts_with(scheme)) {
                let what = "is not postgres://USER:PASSWORD@HOST:5432/DATABASE; other databases are read through objects";
                return Err(Error::invalid(format!("grid.source: the url of `{name}` {what}")));
            }
            if source.statement_timeout.0 < Duration::from_secs(1) {
                return Err(Error::invalid(format!("grid.source: statement-timeout of `{name}` must be at least 1s")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;
    use tidemill_runtime::Layers;

    #[test]
    fn sources_are_read_and_checked_and_keep_their_passwords() {
        let read = |text: &str| {
            let config: ServerConfig = Layers::defaults(&ServerConfig::default()).unwrap().file("t", text)?.build()?;
            config.check()?;
            Ok::<_, Error>(config)
        };
        let config = read("[[grid.source]]\nname = \"trades\"\nurl = \"postgres://ada:hunter2@db/mill\"").unwrap();
        assert_eq!(config.grid.source[0].statement_timeout, seconds(300));
        assert!(!format!("{config:?}").contains("hunter2"));
        for (text, word) in [
            ("[[grid.source]]\nname = \"a b\"\nurl = \"postgres://db\"", "`a b`"),
            ("[[grid.source]]\nname = \"a\"\nurl = \"mysql://ada:hunter2@db\"", "other databases"),
            ("[[grid.source]]\nname = \"a\"\nurl = \"postgres://db\"\n[[grid.source]]\nname = \"a\"\nurl = \"postgres://db\"", "twice"),
            ("[[grid.source]]\nname = \"a\"\nurl = \"postgres://db\"\nstatement-timeout = \"1ms\"", "at least 1s"),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.message().contains(word) && !e.chain().contains("hunter2"), "{e}");
        }
    }

    #[test]
    fn the_python_of_the_data_folder_is_found() {
        let data = tempfile::tempdir().unwrap();
        let grid = GridSection::default();
        assert_eq!(grid.python(data.path()), None);
        let file = data.path().join("python/bin/python3");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(grid.python(data.path()), Some(file));
        let set = GridSection { python: "/opt/python".into(), ..grid };
        assert_eq!(set.python(data.path()), Some("/opt/python".into()));
    }
}
