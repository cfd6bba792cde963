//! `[sql]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{ByteSize, Error, HumanDuration, Result};

use super::{as_text, seconds};

/// `[sql]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SqlSection {
    /// The longest that a statement may take, with the time that its caller needs to read the answer.
    pub statement_timeout: HumanDuration,
    /// Memory for sorting, joining and grouping of all statements together; beyond it they go on with files in the data folder.
    #[serde(serialize_with = "as_text")]
    pub memory: ByteSize,
    /// Statements that run at a time; more wait.
    pub concurrency: u32,
    /// Connections to the SQL listener at once; more are told so.
    pub max_connections: u32,
    /// A connection to the SQL listener that says nothing for so long is ended.
    pub idle_timeout: HumanDuration,
}

impl Default for SqlSection {
    fn default() -> Self {
        Self {
            statement_timeout: seconds(60),
            memory: ByteSize(512 << 20),
            concurrency: 8,
            max_connections: 100,
            idle_timeout: seconds(30 * 60),
        }
    }
}

impl SqlSection {
    pub(super) fn check(&self) -> Result<()> {
        if self.statement_timeout.0 < Duration::from_millis(100) || self.idle_timeout.0 < Duration::from_secs(1) {
            return Err(Error::invalid("sql.statement-timeout must be at least 100ms and sql.idle-timeout at least 1s"));
        }
        if self.memory.bytes() < 16 << 20 {
            return Err(Error::invalid(format!("sql.memory {} is less than 16MiB, which no grouping gets by with", self.memory)));
        }
        if self.concurrency == 0 || self.max_connections == 0 {
            return Err(Error::invalid("sql.concurrency and sql.max-connections must be above zero"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        SqlSection::default().check().unwrap();
        let wrong = [
            SqlSection { statement_timeout: seconds(0), ..SqlSection::default() },
            SqlSection { memory: ByteSize(1 << 20), ..SqlSection::default() },
            SqlSection { max_connections: 0, ..SqlSection::default() },
        ];
        for section in wrong {
            assert!(section.check().unwrap_err().message().contains("sql."), "{section:?}");
        }
    }
}
