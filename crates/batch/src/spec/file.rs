//! A job as a TOML file.
//!
//! ```toml
//! name = "thumbnails"
//!
//! [[stage]]
//! name = "shrink"
//! objects = "photos/2025/**/*.jpg"
//! command = ["convert", "{in}", "-resize", "50%", "{out}"]
//! output = "{name}-small.jpg"
//! memory = "512MiB"
//! timeout = "5m"
//! retries = 2
//! ```

use tidemill_base::{Error, Result, Timestamp};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::limits::MAX_FILE_BYTES;
use super::node::{At, Entry, Node, Value};
use super::shape;
use crate::model::JobSpec;

/// Reads, completes and checks a job. `now` is what `at = "+10m"` counts from. `Invalid` with line and column for what the file itself
/// gets wrong, with the stage and field for what [`super::validate`] refuses.
pub fn from_toml(text: &str, now: Timestamp) -> Result<JobSpec> {
    check_size(text)?;
    let lines = Lines::of(text);
    let root = DeTable::parse(text).map_err(|e| {
        let at = lines.at(e.span().map_or(0, |s| s.start));
        at.error(format!("this is not TOML: {}", e.message().replace('\n', "; ")))
    })?;
    let node = Node { at: At::Line(1, 1), value: lines.table(root.get_ref())? };
    shape::job(&node, now)
}

pub(super) fn check_size(text: &str) -> Result<()> {
    if text.len() <= MAX_FILE_BYTES {
        return Ok(());
    }
    let what =
        format!("the job file has {} bytes, the limit is {MAX_FILE_BYTES}; put long lists into an object and use `lines`", text.len());
    Err(Error::new(tidemill_base::ErrorKind::Exhausted, what))
}

/// Turns offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        Self { text, starts }
    }

    fn at(&self, offset: usize) -> At {
        let line = self.starts.partition_point(|s| *s <= offset).max(1);
        let before = self.text.get(self.starts[line - 1]..offset).unwrap_or_default();
        At::Line(line, before.chars().count() + 1)
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Value> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let (at, key) = (self.at(key.span().start), key.get_ref().clone().into_owned());
            entries.push(Entry { key, at, node: self.node(value)? });
        }
        // The parser gives keys in order of the alphabet; the first mistake in the file is the one to name.
        entries.sort_by_key(|e| if let At::Line(line, column) = e.at { (line, column) } else { (0, 0) });
        Ok(Value::Table(entries))
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node> {
        let at = self.at(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Integer(n) => {
                let parsed = i64::from_str_radix(n.as_str(), n.radix());
                Value::Int(parsed.map_err(|_| at.error(format!("the number {n} is too large")))?)
            }
            DeValue::Float(n) => Value::Float(n.as_str().parse().map_err(|_| at.error(format!("{n} is not a number")))?),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Array(list) => Value::List(list.iter().map(|n| self.node(n)).collect::<Result<_>>()?),
            DeValue::Table(table) => self.table(table)?,
        };
        Ok(Node { at, value })
    }
}
