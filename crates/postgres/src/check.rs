//! What the drivers need of the server, and whether it is there.

use tidemill_base::{Error, ErrorKind};
use tidemill_blocks::check::{Finding, Found};

use crate::link::Link;
use crate::schema::{self, Server};

/// Looks at everything that is needed, and makes what is missing if `create`.
pub(crate) async fn check(link: &Link, create: bool) -> Vec<Finding> {
    let what = format!("PostgreSQL at {}", link.target.place);
    let before = match schema::look(link).await {
        Ok(server) => server,
        Err(e) => return vec![Finding::new(what, found(&e), e.chain())],
    };
    if let Err(e) = before.fit(&link.target.place) {
        return vec![Finding::new(what, Found::Missing, e.message())];
    }
    let mut findings = vec![Finding { note: format!("version {}", shown(before.version)), ..Finding::ready(what) }];
    let made = if create { schema::set_up(link).await } else { Ok(()) };
    match made {
        Ok(()) => {
            let after = if create { schema::look(link).await.unwrap_or_else(|_| before.clone()) } else { before.clone() };
            findings.extend(tables(link, &before, &after));
        }
        Err(e) => findings.push(Finding::new(format!("schema {}", link.target.schema), found(&e), e.chain())),
    }
    findings
}

fn tables(link: &Link, before: &Server, after: &Server) -> Vec<Finding> {
    let schema = &link.target.schema;
    let state = |was: bool, is: bool| match (was, is) {
        (true, _) => Found::Ready,
        (false, true) => Found::Made,
        (false, false) => Found::Missing,
    };
    let mut findings = Vec::new();
    let note = match (after.has_schema, after.may_create_schema) {
        (true, _) => String::new(),
        (false, true) => "run the check with creation, or start a manager".to_owned(),
        (false, false) => format!("this user may not make it; let an administrator run CREATE SCHEMA {schema} AUTHORIZATION this user"),
    };
    findings.push(Finding::new(format!("schema {schema}"), state(before.has_schema, after.has_schema), note));
    if after.has_schema && !after.may_create_tables {
        let note = format!("let an administrator run GRANT CREATE, USAGE ON SCHEMA {schema} for this user");
        findings.push(Finding::new(format!("permission to make tables in schema {schema}"), Found::Denied, note));
    }
    for table in schema::TABLES {
        let lacks = |server: &Server| server.missing.iter().any(|t| t == table);
        let found = state(!lacks(before), !lacks(after));
        let note = if found.is_ready() { "" } else { "run the check with creation, or start a manager" };
        findings.push(Finding::new(format!("table {schema}.{table}"), found, note));
    }
    findings
}

fn found(e: &Error) -> Found {
    match e.kind() {
        ErrorKind::Denied => Found::Denied,
        ErrorKind::NotFound => Found::Missing,
        _ => Found::Unreachable,
    }
}

fn shown(version: i32) -> String {
    format!("{}.{}", version / 10_000, version % 10_000)
}
