//! What `tests/fuzz` reaches of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidemill_query::Rewrite;

use crate::rewrite::{Facts, Names, Parameters, rewrite};
use crate::session::utility;
use crate::value::{Format, Parameter, literal};
use crate::{lex, wire};

/// How many messages are in `bytes`, as those of a client that has signed in and before; what ended it.
pub fn messages(bytes: &[u8], max: usize) -> (usize, &'static str) {
    let mut buf = BytesMut::from(bytes);
    let _ = wire::opening(&mut BytesMut::from(bytes), max);
    let mut count = 0;
    loop {
        match wire::frame(&mut buf, max) {
            Ok(Some((tag, body))) => match wire::message(tag, body) {
                Ok(_) => count += 1,
                Err(e) => return (count, e.0),
            },
            Ok(None) => return (count, "the end"),
            Err(e) => return (count, e.0),
        }
    }
}

/// The statements of a text, and the states of those about the session that are wrong.
pub fn statements(sql: &str) -> Vec<(&str, Option<&'static str>)> {
    let state = |sql| utility::parse(sql).err().map(|e| e.state);
    lex::statements(sql).into_iter().map(|statement| (statement, state(statement))).collect()
}

/// The literal for a value, or the state of what is wrong with it.
pub fn value(oid: u32, binary: bool, bytes: &[u8]) -> std::result::Result<String, &'static str> {
    let format = if binary { Format::Binary } else { Format::Text };
    let parameter = Parameter { oid, format, value: Some(Bytes::copy_from_slice(bytes)) };
    literal(1, &parameter).map(|e| e.to_string()).map_err(|e| e.state)
}

/// The change that statements of a session go through, with one parameter.
pub fn change(parameter: &[u8]) -> Arc<Rewrite> {
    let facts = Facts {
        user: "ada".to_owned(),
        version: "PostgreSQL 15.0".to_owned(),
        process: 7,
        settings: BTreeMap::new(),
        names: Names::new(&[], &["batch".to_owned()]),
    };
    let parameter = Parameter { oid: 0, format: Format::Text, value: Some(Bytes::copy_from_slice(parameter)) };
    rewrite(Arc::new(facts), Parameters::Values(vec![parameter]))
}

/// Adds the catalog's tables to an engine.
pub fn register(engine: &Arc<tidemill_query::Engine>) {
    crate::catalog::register(engine, "15.0");
}
