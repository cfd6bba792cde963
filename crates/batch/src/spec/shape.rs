//! The shape of a job file: which keys there are and what they become.

use std::collections::BTreeMap;

use tidemill_base::{Error, Result, Timestamp, parse_duration};

use super::node::{Fields, Node, Value};
use super::shape_stage::stage;
use super::{defaults, validate};
use crate::model::JobSpec;

const JOB: &[&str] = &["name", "class", "priority", "after", "at", "cron", "timezone", "labels", "stage"];

/// The class of workers that takes jobs which name none.
pub const DEFAULT_CLASS: &str = "default";

/// Reads a whole job.
pub(crate) fn job(root: &Node, now: Timestamp) -> Result<JobSpec> {
    let f = root.fields("the job", JOB)?;
    let stage_list = f.need("stage", "[[stage]]")?.list("stage", "a list of stages, each under [[stage]]")?;
    let stages = stage_list.iter().enumerate().map(|(i, n)| stage(n, i)).collect::<Result<Vec<_>>>()?;
    let mut spec = JobSpec {
        name: f.need("name", "name = \"thumbnails\"")?.text("name", "a string")?.to_owned(),
        class: f.text("class")?.unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
        priority: f.opt("priority", Node::int)?.unwrap_or(0),
        after: f.opt("after", Node::one_or_more_texts)?.unwrap_or_default(),
        at: f.opt("at", |n, _| at(n, now))?,
        cron: f.text("cron")?,
        timezone: f.text("timezone")?.unwrap_or_else(|| "UTC".to_owned()),
        labels: f.opt("labels", text_map)?.unwrap_or_default(),
        stages,
    };
    defaults::fill(&mut spec);
    validate::validate(&spec)?;
    Ok(spec)
}

/// Reads a moment: RFC 3339, or `+10m` from `now`.
pub fn parse_at(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Some(wait) = text.strip_prefix('+') {
        return parse_duration(wait).map(|d| now + d);
    }
    let parsed: std::result::Result<jiff::Timestamp, _> = text.parse();
    parsed.map(|t| Timestamp(t.as_microsecond())).map_err(|_| {
        let text = text.escape_debug();
        Error::invalid(format!(
            "`{text}` is not a moment; write it with its offset like `2026-01-31T22:00:00Z`, or `+10m` for in ten minutes"
        ))
    })
}

fn at(node: &Node, now: Timestamp) -> Result<Timestamp> {
    let (Value::Text(text) | Value::Time(text)) = &node.value else { return Err(node.wrong("at", "a time such as 2026-01-31T22:00:00Z")) };
    node.at.locate(parse_at(text, now))
}

/// A table of strings.
pub(super) fn text_map(node: &Node, key: &str) -> Result<BTreeMap<String, String>> {
    let entries = node.entries(key, "a table of strings")?;
    entries.iter().map(|e| Ok((e.key.clone(), e.node.text(&format!("{key}.{}", e.key), "a string")?.to_owned()))).collect()
}

/// A table of whole numbers that are not negative.
pub(super) fn count_map(node: &Node, key: &str) -> Result<BTreeMap<String, u64>> {
    let entries = node.entries(key, "a table of whole numbers")?;
    entries.iter().map(|e| Ok((e.key.clone(), e.node.int(&format!("{key}.{}", e.key))?))).collect()
}

/// Refuses keys that have no meaning without another.
pub(super) fn only_with(f: &Fields<'_>, key: &str, fits: bool, with: &str) -> Result<()> {
    match f.get(key) {
        Some(node) if !fits => Err(node.at.error(format!("`{key}` goes with {with} only; leave it out"))),
        _ => Ok(()),
    }
}
