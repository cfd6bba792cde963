//! The extended protocol: prepare, bind, describe, execute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::rows::{fields, formats};
use super::utility::Utility;
use super::{MAX_KEPT, Portal, Prepared, Session, State, Work, text_fields};
use crate::error::{SqlError, SqlResult};
use crate::lex::{Kind, tokens};
use crate::link::{Halt, Link};
use crate::rewrite::{Parameters, rewrite};
use crate::value::{Format, Parameter, of_arrow};
use crate::wire::{Bind, Field, Transaction};

/// The most parameters in a statement: what fits into the protocol's count.
const MAX_PARAMETERS: usize = 65_535;

impl Session {
    pub(super) fn parse(&mut self, link: &mut Link, name: String, sql: &str, types: Vec<u32>) -> Result<(), Halt> {
        if !name.is_empty() && self.prepared.contains_key(&name) {
            return Err(SqlError::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        if self.prepared.len() >= MAX_KEPT {
            return Err(SqlError::new("53000", format!("{MAX_KEPT} prepared statements are the limit")).with_hint("use DEALLOCATE").into());
        }
        let work = Work::of(sql)?;
        let count = parameters(sql).max(types.len());
        let mut types = types;
        types.resize(count.min(MAX_PARAMETERS), 0);
        self.prepared.insert(name, Prepared { work, types });
        link.reply.bare(b'1');
        Ok(())
    }

    pub(super) fn bind(&mut self, link: &mut Link, bind: Bind) -> Result<(), Halt> {
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(SqlError::new("42P03", format!("portal \"{}\" already exists", bind.portal)).into());
        }
        if self.portals.len() >= MAX_KEPT {
            return Err(SqlError::new("53000", format!("{MAX_KEPT} portals are the limit")).into());
        }
        let prepared = self.prepared.get(&bind.statement).ok_or_else(|| unknown_statement(&bind.statement))?;
        let have = bind.values.len();
        if have != prepared.types.len() {
            let need = prepared.types.len();
            return Err(SqlError::new("08P01", format!("bind message supplies {have} parameters, but the statement needs {need}")).into());
        }
        let formats = formats(&bind.formats, have)?;
        let one = |((value, oid), format): ((Option<Bytes>, &u32), Format)| Parameter { oid: *oid, format, value };
        let parameters = bind.values.into_iter().zip(&prepared.types).zip(formats).map(one).collect();
        let work = prepared.work.clone();
        self.portals.insert(bind.portal, Portal { work, parameters, formats: bind.results, state: State::Fresh, hold: false });
        link.reply.bare(b'2');
        Ok(())
    }

    pub(super) async fn describe_statement(&mut self, link: &mut Link, name: &str) -> Result<(), Halt> {
        let prepared = self.prepared.get(name).ok_or_else(|| unknown_statement(name))?;
        let (work, mut types) = (prepared.work.clone(), prepared.types.clone());
        let columns = match &work {
            Work::Query(sql) => Some(self.describe_query(link, sql, &mut types).await?),
            work => self.columns_of(work, &[])?,
        };
        if let Some(prepared) = self.prepared.get_mut(name) {
            // From here on the client sends values of the types that it was told.
            prepared.types.clone_from(&types);
        }
        link.reply.parameters(&types);
        match columns {
            Some(columns) => link.reply.columns(&columns),
            None => link.reply.bare(b'n'),
        }
        Ok(())
    }

    /// The columns of a query; fills in the types of its parameters.
    async fn describe_query(&mut self, link: &mut Link, sql: &str, types: &mut [u32]) -> Result<Vec<Field>, Halt> {
        self.may_run()?;
        self.admitted().await?;
        let (facts, limits) = (self.facts(), self.limits());
        let said = |e: tidemill_base::Error| SqlError::of_statement(sql, &e);
        let cast = Arc::new(Mutex::new(BTreeMap::new()));
        let change = rewrite(facts.clone(), Parameters::Types(types.to_vec(), Arc::clone(&cast)));
        self.key.asked.mark_unchanged();
        let found = link.attend(&mut self.key.asked, self.engine.describe(sql, limits, change)).await?;
        let found = match found {
            // What has no type where it stands is a text, as PostgreSQL has it.
            Err(first) if types.contains(&0) => {
                let change = rewrite(facts, Parameters::Texts);
                let again = link.attend(&mut self.key.asked, self.engine.describe(sql, limits, change)).await?;
                again.map_err(|_| said(first))?
            }
            found => found.map_err(said)?,
        };
        let cast = cast.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (i, oid) in types.iter_mut().enumerate().filter(|(_, oid)| **oid == 0) {
            let planned = || found.parameters.get(&(i + 1)).and_then(Option::as_ref).map(|kind| of_arrow(kind).0);
            *oid = cast.get(&(i + 1)).copied().or_else(planned).unwrap_or(25);
        }
        let count = found.columns.fields().len();
        Ok(fields(&found.columns, &vec![Format::Text; count])?)
    }

    pub(super) async fn describe_portal(&mut self, link: &mut Link, name: &str) -> Result<(), Halt> {
        let mut portal = self.portals.remove(name).ok_or_else(|| unknown_portal(name))?;
        let columns = match (&portal.work, &portal.state) {
            (Work::Query(sql), State::Fresh) => {
                let rows = self.open(link, sql, &portal.parameters, &portal.formats).await?;
                let columns = rows.fields()?;
                portal.state = State::Open(Box::new(rows));
                Some(columns)
            }
            (_, State::Open(rows)) => Some(rows.fields()?),
            (work, _) => self.columns_of(work, &portal.formats)?,
        };
        self.portals.insert(name.to_owned(), portal);
        match columns {
            Some(columns) => link.reply.columns(&columns),
            None => link.reply.bare(b'n'),
        }
        Ok(())
    }

    /// The columns of what the session answers by itself.
    fn columns_of(&self, work: &Work, codes: &[i16]) -> SqlResult<Option<Vec<Field>>> {
        match work {
            Work::Utility(Utility::Show(name)) => text_fields(&[self.shown_as(name)], codes).map(Some),
            Work::Utility(Utility::ShowAll) => text_fields(&["name", "setting", "description"], codes).map(Some),
            Work::Utility(Utility::Fetch { name, .. }) => match self.portals.get(name).map(|p| &p.state) {
                Some(State::Open(rows)) => rows.fields().map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// After a failed statement a transaction waits for its end.
    pub(super) fn may_run(&self) -> SqlResult<()> {
        if self.transaction == Transaction::Failed {
            return Err(SqlError::new("25P02", "current transaction is aborted, commands ignored until end of transaction block")
                .with_hint("send ROLLBACK"));
        }
        Ok(())
    }
}

pub(super) fn unknown_portal(name: &str) -> SqlError {
    SqlError::new("34000", format!("cursor \"{name}\" does not exist"))
}

fn unknown_statement(name: &str) -> SqlError {
    SqlError::new("26000", format!("prepared statement \"{name}\" does not exist"))
}

/// The highest number of a parameter in a statement.
fn parameters(sql: &str) -> usize {
    let mut most = 0;
    let mut dollar = None;
    for token in tokens(sql) {
        if token.kind == Kind::Word && dollar == Some(token.start) {
            most = most.max(token.raw.parse().ok().filter(|n| *n <= MAX_PARAMETERS).unwrap_or(0));
        }
        dollar = (token.kind == Kind::Symbol('$')).then_some(token.end());
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_where_they_are_some() {
        assert_eq!(parameters("SELECT $2, '$9', $$ $8 $$, $1 -- $7"), 2);
        assert_eq!(parameters("SELECT a$3, $ 4"), 0);
        assert_eq!(parameters("SELECT $99999999999"), 0);
    }
}
