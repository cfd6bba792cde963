//! The fields of a task: each is asked for by its name, and whatever is wrong is said with that name.

use std::cell::RefCell;

use serde_json::{Map, Value};
use tidemill_base::{Error, Result};

/// The fields of one task.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// Everything that was asked for.
    known: RefCell<Vec<&'static str>>,
}

impl Fields {
    /// Reads a JSON object.
    pub(crate) fn read(payload: &[u8]) -> Result<Self> {
        match serde_json::from_slice(payload) {
            Ok(Value::Object(map)) => Ok(Self { map, known: RefCell::default() }),
            Ok(other) => Err(Error::invalid(format!("a task is an object with its parameters, and this one is {}", short(&other)))),
            Err(e) => Err(Error::invalid(format!("the task is not JSON: {e}"))),
        }
    }

    fn get(&self, name: &'static str) -> Option<&Value> {
        self.known.borrow_mut().push(name);
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// Whether the field is given.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    /// A number that must be there.
    pub(crate) fn number(&self, name: &'static str) -> Result<f64> {
        self.optional(name)?.ok_or_else(|| Error::invalid(format!("`{name}` is missing; it must be a number")))
    }

    /// A number, or what it is without one.
    pub(crate) fn number_or(&self, name: &'static str, otherwise: f64) -> Result<f64> {
        Ok(self.optional(name)?.unwrap_or(otherwise))
    }

    fn optional(&self, name: &'static str) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| Error::invalid(format!("`{name}` is {}; it must be a number", short(value))))
    }

    /// A count, or what it is without one.
    pub(crate) fn count_or(&self, name: &'static str, otherwise: u32) -> Result<u32> {
        let Some(value) = self.get(name) else { return Ok(otherwise) };
        let count = value.as_u64().and_then(|n| u32::try_from(n).ok());
        count.ok_or_else(|| Error::invalid(format!("`{name}` is {}; it must be a whole number from 0 on", short(value))))
    }

    /// One of some words; the first if none is given and that is allowed.
    pub(crate) fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)], required: bool) -> Result<T> {
        let all = || words.iter().map(|(w, _)| *w).collect::<Vec<_>>().join(", ");
        match (self.get(name), words) {
            (None, [(_, first), ..]) if !required => Ok(*first),
            (None, _) => Err(Error::invalid(format!("`{name}` is missing; it must be one of {}", all()))),
            (Some(value), _) => words
                .iter()
                .find(|(w, _)| value.as_str() == Some(w))
                .map(|(_, t)| *t)
                .ok_or_else(|| Error::invalid(format!("`{name}` is {}; it must be one of {}", short(value), all()))),
        }
    }

    /// Refuses fields that nobody has asked for: a slip of the pen must not become the usual value.
    pub(crate) fn end(&self) -> Result<()> {
        let known = self.known.borrow();
        match self.map.keys().find(|k| !known.contains(&k.as_str())) {
            Some(name) => Err(Error::invalid(format!("`{}` is not a field here; there are {}", name.escape_debug(), known.join(", ")))),
            None => Ok(()),
        }
    }
}

/// A value as it is written, cut to what fits into a message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 40 { format!("`{text}`") } else { format!("`{}...`", text.chars().take(37).collect::<String>()) }
}
