//! Rows of numbers, and the file that they go to.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use tidemill_base::Env;

use crate::facts;

/// What a number is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What the machine does with nothing in between.
    Floor,
    /// Another system.
    Peer,
    /// Tidemill.
    Ours,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Peer => "peer",
            Self::Ours => "ours",
        }
    }
}

/// A goal: the value at least, or at most, so much.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least.
    Least(f64),
    /// At most.
    Most(f64),
}

/// One number.
#[derive(Debug, Clone)]
pub(crate) struct Row(Map<String, Value>);

impl Row {
    /// `what` was measured to be `value`.
    pub(crate) fn new(role: Role, what: &str, value: f64, unit: &str) -> Self {
        let mut map = Map::new();
        map.insert("role".into(), role.word().into());
        map.insert("what".into(), what.into());
        map.insert("value".into(), json!(value));
        map.insert("unit".into(), unit.into());
        Self(map)
    }

    /// A peer that could not be measured, and why.
    pub(crate) fn absent(what: &str, why: &str) -> Self {
        let mut row = Self::new(Role::Peer, what, 0.0, "");
        row.0.insert("value".into(), Value::Null);
        row.note(why)
    }

    /// What it should be.
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        let value = self.0["value"].as_f64().unwrap_or(f64::NAN);
        let (word, limit, met) = match goal {
            Goal::Least(limit) => ("at least", limit, value >= limit),
            Goal::Most(limit) => ("at most", limit, value <= limit),
        };
        self.0.insert("goal".into(), format!("{word} {}", number(limit)).into());
        self.0.insert("met".into(), met.into());
        self
    }

    /// Rows of one group are compared with one another, and not with others of the bench.
    pub(crate) fn group(mut self, name: &str) -> Self {
        self.0.insert("group".into(), name.into());
        self
    }

    /// What else there is to say.
    pub(crate) fn note(mut self, text: &str) -> Self {
        self.0.insert("note".into(), text.into());
        self
    }
}

/// Collects the rows of one run of one bench.
#[derive(Debug)]
pub(crate) struct Recorder {
    bench: String,
    quick: bool,
    at: String,
    facts: Value,
    load_before: f64,
    rows: Vec<Row>,
}

impl Recorder {
    pub(crate) fn new(bench: &str, quick: bool) -> Result<Self> {
        let (at, facts) = (Env::system().now().rfc3339(), facts::facts());
        Ok(Self { bench: bench.to_owned(), quick, at, facts, load_before: facts::load(), rows: Vec::new() })
    }

    /// Keeps a row, and shows it.
    pub(crate) fn add(&mut self, row: Row) {
        let text = |key: &str| row.0.get(key).and_then(Value::as_str).unwrap_or("");
        let value = row.0["value"].as_f64().map_or_else(|| "-".to_owned(), number);
        eprintln!("{:<6} {:<60} {value:>12} {}  {}", text("role"), text("what"), text("unit"), text("note"));
        self.rows.push(row);
    }

    /// Appends the rows to the day's file.
    pub(crate) fn save(self) -> Result<()> {
        let folder = results();
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}.jsonl", &self.at[..10]));
        let mut out = OpenOptions::new().create(true).append(true).open(&file).with_context(|| file.display().to_string())?;
        for Row(mut row) in self.rows {
            row.insert("bench".into(), self.bench.clone().into());
            row.insert("at".into(), self.at.clone().into());
            row.insert("quick".into(), self.quick.into());
            row.insert("load_before".into(), json!(self.load_before));
            row.insert("facts".into(), self.facts.clone());
            writeln!(out, "{}", Value::Object(row))?;
        }
        Ok(())
    }
}

/// The folder of this package.
pub(crate) fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn results() -> PathBuf {
    home().join("results")
}

/// A number as people read it: three or four figures that count, thousands apart.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        // Two digits that say something, of cents and of thousandths as well.
        let places = if value == 0.0 || value.abs() >= 0.1 { 2 } else { (1.0 - value.abs().log10().floor()).min(9.0) as usize };
        let text = format!("{value:.places$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

/// The value below which the share `q` of all lies. Zero of nothing.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * q).ceil().max(1.0) as usize - 1;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [0.0, 0.756, 12.0, 99.5, 100.4, 1234.0, 1_234_567.0].map(number),
            ["0", "0.76", "12", "99.5", "100", "1,234", "1,234,567"]
        );
        assert_eq!([0.1, 0.05, 0.001_82, -0.001].map(number), ["0.1", "0.05", "0.0018", "-0.001"]);
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((median(&values), quantile(&values, 0.99), quantile(&values, 1.0)), (100.0, 198.0, 200.0));
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[])), (2.0, 0.0));
    }

    #[test]
    fn a_goal_is_met_or_not() {
        let met = |goal| Row::new(Role::Ours, "x", 5.0, "ms").goal(goal).0["met"].as_bool();
        assert_eq!(
            [Goal::Least(5.0), Goal::Least(5.1), Goal::Most(5.0), Goal::Most(4.9)].map(met),
            [Some(true), Some(false), Some(true), Some(false)]
        );
    }
}
