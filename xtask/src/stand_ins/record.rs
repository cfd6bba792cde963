//! The file that says what runs, so that another start of this program finds it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

const FILE: &str = "running.json";

/// A service that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) variable: String,
    /// What the variable is set to.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) pid: u32,
    /// When the process was started, as the system tells it: a later one with the same number is another.
    pub(super) started: u64,
    /// What the service keeps, where `stop` needs it.
    pub(super) data: String,
}

/// Everything that was started and not stopped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) services: Vec<Running>,
}

impl Record {
    /// What the file says; a file that cannot be read as a record is passed over, since all of it can be made again.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }

    fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let services = value["services"].as_array().into_iter().flatten().filter_map(running).collect();
        Self { services }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(&self.value())?;
        // Replaced as a whole, so that nobody reads half of it.
        let part = path.with_extension("part");
        std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &path)).with_context(|| format!("write {}", path.display()))
    }

    fn value(&self) -> Value {
        let one = |r: &Running| {
            json!({ "name": r.name, "variable": r.variable, "address": r.address, "port": r.port, "pid": r.pid,
                    "started": r.started, "data": r.data })
        };
        json!({ "services": self.services.iter().map(one).collect::<Vec<_>>() })
    }
}

fn running(value: &Value) -> Option<Running> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some(Running {
        name: text("name")?,
        variable: text("variable")?,
        address: text("address")?,
        port: value["port"].as_u64()?.try_into().ok()?,
        pid: value["pid"].as_u64()?.try_into().ok()?,
        started: value["started"].as_u64()?,
        data: text("data")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let running = Running {
            name: "moto".into(),
            variable: "TIDEMILL_TEST_MOTO".into(),
            address: "http://127.0.0.1:5001".into(),
            port: 5001,
            pid: 42,
            started: 7,
            data: String::new(),
        };
        let record = Record { services: vec![running] };
        assert_eq!(Record::parse(&record.value().to_string()), record);
        for bad in ["", "{", "[]", r#"{"services":[{"name":"moto","port":70000}]}"#] {
            assert_eq!(Record::parse(bad), Record::default(), "{bad}");
        }
    }
}
