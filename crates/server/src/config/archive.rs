//! `[archive]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, HumanDuration, Result};

use super::seconds;

/// `[archive]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ArchiveSection {
    /// Archives older than this are removed; zero: they stay until somebody removes them.
    pub keep: HumanDuration,
    /// How long a restore takes: what it takes the storage to fetch what is cold; zero: none.
    pub delay: HumanDuration,
    /// How long what was restored can be read before it has to be asked for again.
    pub readable: HumanDuration,
    /// The storage class that archives are written with, for object stores that have classes, such as `GLACIER_IR`; empty: the bucket's own.
    pub storage_class: String,
}

impl Default for ArchiveSection {
    fn default() -> Self {
        Self { keep: seconds(0), delay: seconds(0), readable: seconds(7 * 24 * 3600), storage_class: String::new() }
    }
}

impl ArchiveSection {
    /// How long archives are kept; `None`: for good.
    pub fn keep(&self) -> Option<Duration> {
        (!self.keep.0.is_zero()).then_some(self.keep.0)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.readable.0 < Duration::from_secs(1) {
            return Err(Error::invalid("archive.readable must be at least 1s; what is restored has to be read"));
        }
        if !self.storage_class.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
            let class = self.storage_class.escape_debug();
            return Err(Error::invalid(format!(
                "archive.storage-class `{class}` is none; use a word such as GLACIER_IR, or leave it empty"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        ArchiveSection::default().check().unwrap();
        assert_eq!(ArchiveSection::default().keep(), None);
        let wrong = [
            ArchiveSection { readable: seconds(0), ..ArchiveSection::default() },
            ArchiveSection { storage_class: "deep freeze".to_owned(), ..ArchiveSection::default() },
        ];
        for section in wrong {
            assert!(section.check().unwrap_err().message().contains("archive."), "{section:?}");
        }
    }
}
