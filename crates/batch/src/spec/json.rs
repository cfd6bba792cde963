//! A job as JSON: the same shape as the TOML file, for programs.

use serde_json::Value as Json;
use tidemill_base::{Error, Result, Timestamp};

use super::file::check_size;
use super::node::{At, Entry, Node, Value};
use super::shape;
use crate::model::JobSpec;

/// Reads, completes and checks a job. As [`super::from_toml`], but places are JSON pointers such as `/stage/0/command`.
pub fn from_json(text: &str, now: Timestamp) -> Result<JobSpec> {
    check_size(text)?;
    let json: Json = serde_json::from_str(text).map_err(|e| {
        let full = e.to_string();
        let place = format!(" at line {} column {}", e.line(), e.column());
        Error::invalid(format!("line {}, column {}: this is not JSON: {}", e.line(), e.column(), full.trim_end_matches(&place)))
    })?;
    shape::job(&node(json, String::new())?, now)
}

fn node(json: Json, pointer: String) -> Result<Node> {
    let at = At::Pointer(pointer.clone());
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Flag(flag),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(float)) if !n.is_u64() => Value::Float(float),
            _ => return Err(at.error(format!("the number {n} is too large"))),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(list) => {
            Value::List(list.into_iter().enumerate().map(|(i, v)| node(v, format!("{pointer}/{i}"))).collect::<Result<_>>()?)
        }
        Json::Object(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map {
                let place = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                entries.push(Entry { key, at: At::Pointer(place.clone()), node: node(value, place)? });
            }
            Value::Table(entries)
        }
    };
    Ok(Node { at, value })
}
