//! A value of a job file that knows where it stands: what TOML and JSON have in common.
//!
//! The files are read by hand from this tree and not by `serde`, because every refusal names the place, and a key that is not known
//! is refused with the one that was probably meant.

use std::fmt;

use tidemill_base::{ByteSize, Error, HumanDuration, Result};

use super::suggest;

/// Where a value stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// Of TOML: line and column, both from 1.
    Line(usize, usize),
    /// Of JSON: a JSON pointer.
    Pointer(String),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line, column) => write!(f, "line {line}, column {column}"),
            Self::Pointer(pointer) if pointer.is_empty() => f.write_str("at the top"),
            Self::Pointer(pointer) => f.write_str(pointer),
        }
    }
}

impl At {
    /// An `Invalid` error about this place.
    pub(crate) fn error(&self, message: impl fmt::Display) -> Error {
        Error::invalid(format!("{self}: {message}"))
    }

    /// Puts the place before an error that does not know it.
    pub(crate) fn locate<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.context(self))
    }
}

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Flag(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A date and time of TOML, as it was written.
    Time(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table, its place, and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: At,
    pub(crate) node: Node,
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a string",
            Self::Time(_) => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    /// The error for a value of the wrong type.
    pub(crate) fn wrong(&self, key: &str, want: &str) -> Error {
        self.at.error(format!("`{key}` must be {want}, not {}", self.value.kind()))
    }

    pub(crate) fn text(&self, key: &str, want: &str) -> Result<&str> {
        if let Value::Text(text) = &self.value { Ok(text) } else { Err(self.wrong(key, want)) }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        if let Value::Flag(flag) = self.value { Ok(flag) } else { Err(self.wrong(key, "true or false")) }
    }

    /// A whole number that fits `T`.
    pub(crate) fn int<T: TryFrom<i64>>(&self, key: &str) -> Result<T> {
        let Value::Int(n) = self.value else { return Err(self.wrong(key, "a whole number")) };
        T::try_from(n).map_err(|_| self.at.error(format!("`{key}` cannot be {n}")))
    }

    pub(crate) fn list(&self, key: &str, want: &str) -> Result<&[Self]> {
        if let Value::List(list) = &self.value { Ok(list) } else { Err(self.wrong(key, want)) }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let list = self.list(key, "a list of strings")?;
        list.iter().map(|n| n.text(key, "a list of strings").map(str::to_owned)).collect()
    }

    /// One string, or a list of them.
    pub(crate) fn one_or_more_texts(&self, key: &str) -> Result<Vec<String>> {
        match &self.value {
            Value::Text(text) => Ok(vec![text.clone()]),
            Value::List(_) => self.texts(key),
            _ => Err(self.wrong(key, "a string or a list of strings")),
        }
    }

    pub(crate) fn size(&self, key: &str) -> Result<u64> {
        match &self.value {
            Value::Int(_) => self.int(key),
            Value::Text(text) => self.at.locate(text.parse::<ByteSize>()).map(ByteSize::bytes),
            _ => Err(self.wrong(key, "a size such as \"512MiB\"")),
        }
    }

    pub(crate) fn duration(&self, key: &str) -> Result<HumanDuration> {
        match &self.value {
            Value::Int(_) => {
                let seconds = self.int(key)?;
                let span = HumanDuration::exact(std::time::Duration::from_secs(seconds));
                span.ok_or_else(|| self.at.error(format!("`{key}` cannot be {seconds} seconds")))
            }
            Value::Float(seconds) => {
                let span = std::time::Duration::try_from_secs_f64(*seconds).ok().and_then(HumanDuration::exact);
                span.ok_or_else(|| self.at.error(format!("`{key}` cannot be {seconds} seconds")))
            }
            Value::Text(text) => self.at.locate(text.parse()),
            _ => Err(self.wrong(key, "a duration such as \"90s\" or a number of seconds")),
        }
    }

    /// A word that stands for one of a few values.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<T> {
        let list = words.iter().map(|(w, _)| format!("\"{w}\"")).collect::<Vec<_>>().join(", ");
        let want = format!("one of {list}");
        let text = self.text(key, &want)?;
        let found = words.iter().find(|(w, _)| *w == text.replace('_', "-")).map(|(_, v)| *v);
        found.ok_or_else(|| self.at.error(format!("`{key}` must be {want}, not \"{}\"", text.escape_debug())))
    }

    /// A table of any keys.
    pub(crate) fn entries(&self, key: &str, want: &str) -> Result<&[Entry]> {
        if let Value::Table(entries) = &self.value { Ok(entries) } else { Err(self.wrong(key, want)) }
    }

    /// A table of a few known keys; any other is refused. `what` names the table in the error.
    pub(crate) fn fields(&self, what: &'static str, known: &'static [&'static str]) -> Result<Fields<'_>> {
        let entries = self.entries(what, "a table")?;
        if let Some(stranger) = entries.iter().find(|e| !known.contains(&e.key.as_str())) {
            let hint = suggest::closest(&stranger.key, known.iter().copied()).map(|k| format!("did you mean `{k}`? ")).unwrap_or_default();
            let key = stranger.key.escape_debug();
            return Err(stranger.at.error(format!("unknown key `{key}` in {what}; {hint}known keys: {}", known.join(", "))));
        }
        Ok(Fields { at: &self.at, what, known, entries })
    }
}

/// A table whose keys are all known.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) at: &'a At,
    pub(crate) what: &'static str,
    known: &'static [&'static str],
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// The value of a key; JSON's `null` is as good as no key.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.known.contains(&key), "`{key}` is read but not known");
        let found = self.entries.iter().find(|e| e.key == key).map(|e| &e.node);
        found.filter(|n| !matches!(n.value, Value::Null))
    }

    /// The value of a key, read by `read`, if it is there.
    pub(crate) fn opt<T>(&self, key: &str, read: impl FnOnce(&'a Node, &str) -> Result<T>) -> Result<Option<T>> {
        self.get(key).map(|n| read(n, key)).transpose()
    }

    /// The value of a key that must be there.
    pub(crate) fn need(&self, key: &str, example: &str) -> Result<&'a Node> {
        self.get(key).ok_or_else(|| self.at.error(format!("{} has no `{key}`; write it like `{example}`", self.what)))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>> {
        self.opt(key, |n, k| n.text(k, "a string").map(str::to_owned))
    }

    pub(crate) fn flag(&self, key: &str, otherwise: bool) -> Result<bool> {
        Ok(self.opt(key, Node::flag)?.unwrap_or(otherwise))
    }
}
