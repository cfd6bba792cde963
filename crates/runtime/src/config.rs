//! Configuration in layers: defaults in code, then a TOML file, then `TIDEMILL_...` from the environment, then flags. A later
//! layer wins key by key.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_base::{Error, Result};
use toml::{Table, Value};

/// Where a value came from, for `tidemill config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// The file of that name.
    File(String),
    /// The environment variable of that name.
    Env(String),
    /// A command-line flag.
    Flag,
}

/// Layers being merged.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    merged: Table,
    known: BTreeMap<String, Origin>,
}

impl Layers {
    /// Starts from the defaults of `T`. Every key that exists is known from here on; others are refused by name.
    pub fn defaults<T: Serialize>(defaults: &T) -> Result<Self> {
        let merged = Table::try_from(defaults).map_err(|e| Error::internal("defaults do not serialise").with_source(e))?;
        let mut known = BTreeMap::new();
        walk(&merged, "", &mut |key, _| {
            known.insert(key.to_owned(), Origin::Default);
        });
        Ok(Self { merged, known })
    }

    /// Adds a file's text. Keys that no component knows are refused, with their name, the file's and the line.
    pub fn file(mut self, name: &str, text: &str) -> Result<Self> {
        let table: Table = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| format!(" line {}", line_at(text, span.start))).unwrap_or_default();
            // Without its cause, which shows the line as it is written, and with it a password that may be there.
            Error::invalid(format!("{name}{line}: {}", e.message()))
        })?;
        let mut pairs = Vec::new();
        walk(&table, "", &mut |key, value| pairs.push((key.to_owned(), value.clone())));
        for (key, value) in pairs {
            if !self.known.contains_key(&key) {
                let line = line_of(text, &key).map(|line| format!(" line {line}")).unwrap_or_default();
                return Err(unknown(&key, &format!(" in {name}{line}")));
            }
            self.set(&key, value, Origin::File(name.to_owned()))?;
        }
        Ok(self)
    }

    /// Adds variables: `TIDEMILL_BATCH_TARGET_LEASE` sets `batch.target_lease`. Variables with the prefix that match no key are left
    /// alone, since the command line has variables of its own.
    pub fn env(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let names: BTreeMap<String, String> = self.known.keys().map(|k| (env_name(k), k.clone())).collect();
        for (name, text) in vars {
            if let Some(key) = names.get(&name) {
                let value = parse_like(lookup(&self.merged, key), &text).map_err(|e| e.context(&name))?;
                self.set(&key.clone(), value, Origin::Env(name))?;
            }
        }
        Ok(self)
    }

    /// Sets one key from a flag.
    pub fn flag(mut self, key: &str, text: &str) -> Result<Self> {
        let value = parse_like(lookup(&self.merged, key), text).map_err(|e| e.context(key))?;
        self.set(key, value, Origin::Flag)?;
        Ok(self)
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<()> {
        if !self.known.contains_key(key) {
            return Err(unknown(key, ""));
        }
        let mut table = &mut self.merged;
        let (path, last) = key.rsplit_once('.').map_or(("", key), |(p, l)| (p, l));
        for part in path.split('.').filter(|p| !p.is_empty()) {
            table = table
                .get_mut(part)
                .and_then(Value::as_table_mut)
                .ok_or_else(|| Error::invalid(format!("`{key}` sets a key inside `{part}`, which is not a section")))?;
        }
        table.insert(last.to_owned(), value);
        self.known.insert(key.to_owned(), origin);
        Ok(())
    }

    /// Every key with its value as TOML and where it came from, in order.
    pub fn listing(&self) -> Vec<(String, String, Origin)> {
        self.known.iter().filter_map(|(k, o)| Some((k.clone(), lookup(&self.merged, k)?.to_string(), o.clone()))).collect()
    }

    /// The merged configuration.
    pub fn build<T: DeserializeOwned>(&self) -> Result<T> {
        self.merged
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| Error::invalid(format!("configuration: {}", e.message())).with_source(e))
    }
}

fn unknown(key: &str, place: &str) -> Error {
    Error::invalid(format!("unknown key `{key}`{place}; `tidemill config --defaults` lists the keys"))
}

/// The line, from 1, that an offset into the text is on.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// The line, from 1, that a key is set on: below its section's head, or written out with the section. `None` for keys in other forms.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut section = String::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(head) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            section = format!("{}.", head.trim());
        } else if let Some((name, _)) = line.split_once('=')
            && format!("{section}{}", name.trim().trim_matches('"')) == key
        {
            return Some(n + 1);
        }
    }
    None
}

/// The environment variable of a key: `batch.target-lease` is `TIDEMILL_BATCH_TARGET_LEASE`.
pub(crate) fn env_name(key: &str) -> String {
    format!("TIDEMILL_{}", key.replace(['.', '-'], "_").to_ascii_uppercase())
}

fn walk(table: &Table, prefix: &str, f: &mut impl FnMut(&str, &Value)) {
    for (k, v) in table {
        let key = if prefix.is_empty() { k.clone() } else { format!("{prefix}.{k}") };
        match v {
            Value::Table(t) => walk(t, &key, f),
            _ => f(&key, v),
        }
    }
}

fn lookup<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value)
}

fn parse_like(model: Option<&Value>, text: &str) -> Result<Value> {
    let bad = |want: &str| Error::invalid(format!("`{text}` is not {want}"));
    Ok(match model {
        Some(Value::Integer(_)) => Value::Integer(text.parse().map_err(|_| bad("a whole number"))?),
        Some(Value::Float(_)) => Value::Float(text.parse().map_err(|_| bad("a number"))?),
        Some(Value::Boolean(_)) => Value::Boolean(text.parse().map_err(|_| bad("true or false"))?),
        Some(Value::Array(_)) => {
            Value::Array(text.split(',').filter(|s| !s.is_empty()).map(|s| Value::String(s.trim().to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Settings {
        listen: String,
        batch: Batch,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Batch {
        prefetch: u32,
    }

    fn defaults() -> Layers {
        Layers::defaults(&Settings { listen: "a".into(), batch: Batch { prefetch: 1 } }).unwrap()
    }

    #[test]
    fn later_layers_win_key_by_key() {
        let layers = defaults()
            .file("t.toml", "[batch]\nprefetch = 2")
            .unwrap()
            .env([("TIDEMILL_BATCH_PREFETCH".into(), "3".into()), ("TIDEMILL_URL".into(), "x".into())])
            .unwrap()
            .flag("listen", "b")
            .unwrap();
        assert_eq!(layers.build::<Settings>().unwrap(), Settings { listen: "b".into(), batch: Batch { prefetch: 3 } });
        assert_eq!(layers.listing()[0].2, Origin::Env("TIDEMILL_BATCH_PREFETCH".into()));
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        let e = defaults().file("t.toml", "[batch]\nprefech = 2").unwrap_err();
        assert!(e.message().contains("`batch.prefech` in t.toml line 2"), "{e}");
        let e = defaults().file("t.toml", "listen = \"a\"\n# more\nbatch.prefech = 2").unwrap_err();
        assert!(e.message().contains("`batch.prefech` in t.toml line 3"), "{e}");
        let e = defaults().file("t.toml", "listen = \"a\"\nbatch = {").unwrap_err();
        assert!(e.message().contains("t.toml line 2"), "{e}");
        let e = defaults().file("t.toml", "listen = \"hunter2").unwrap_err();
        assert!(!e.chain().contains("hunter2"), "{}", e.chain());
        let e = defaults().env([("TIDEMILL_BATCH_PREFETCH".into(), "many".into())]).unwrap_err();
        assert!(e.message().contains("TIDEMILL_BATCH_PREFETCH") && e.message().contains("`many`"), "{e}");
    }
}
