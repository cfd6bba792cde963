//! Reading rows of somebody's database: one query, read-only, in portions.
//!
//! The database is not one of ours. It sees a transaction that may not write, the query as it was given, and a cursor that takes a portion
//! at a time, so that neither side holds all rows. Whatever the query tries beyond reading is refused by the server.

use std::pin::pin;
use std::time::Duration;

use tidemill_base::{Error, Result};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Connection, Socket};

use crate::error::{from_connect, from_pg};
use crate::settings::Target;
use crate::tls::Tls;
use crate::{PostgresSettings, SourceKind};

/// Rows in a portion.
const PORTION: u32 = 2_000;

type Carrier = Connection<Socket, <Tls as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>;

/// A query's rows. Dropping it ends the connection, and with it the query.
pub struct SourceRows {
    client: Client,
    connection: Box<Carrier>,
    columns: Vec<(String, SourceKind)>,
    done: bool,
}

impl std::fmt::Debug for SourceRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceRows").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// Waits for an answer while the connection carries it.
async fn carried<T>(connection: &mut Carrier, call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
    let mut call = pin!(call);
    tokio::select! {
        biased;
        answer = &mut call => answer.map_err(from_pg),
        ended = connection => {
            // What the call was told before the end counts.
            match ended {
                Err(e) => Err(from_pg(e)),
                Ok(()) => Err(Error::unavailable("the database has closed the connection")),
            }
        }
    }
}

impl SourceRows {
    /// Connects and starts the query; each portion may take as long as `timeout`.
    ///
    /// `Invalid` for what is not one statement that reads, or has two columns of one name; `Denied` when the user may not read something;
    /// `Unavailable` when the database cannot be reached, or takes longer.
    pub async fn open(settings: &PostgresSettings, query: &str, timeout: Duration) -> Result<Self> {
        let mut target = Target::new(settings)?;
        // A copy that only reads is as good.
        target.config.target_session_attrs(TargetSessionAttrs::Any);
        let connected = target.config.connect(target.tls.clone()).await;
        let (client, connection) = connected.map_err(|e| from_connect(e, &target.place))?;
        let mut connection = Box::new(connection);
        let millis = timeout.as_millis().min(i32::MAX as u128);
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = {millis};
             SET LOCAL idle_in_transaction_session_timeout = '300s'; SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'"
        );
        carried(&mut connection, client.batch_execute(&begin)).await?;
        let query = query.trim().trim_end_matches(';');
        // Prepared by itself first: that is refused for anything but one statement, whatever parentheses it holds.
        let statement = carried(&mut connection, client.prepare(query)).await.map_err(|e| e.context("the query"))?;
        if !statement.params().is_empty() {
            return Err(Error::invalid("the query has parameters such as $1; write the values into it"));
        }
        let columns: Vec<(String, SourceKind)> = statement.columns().iter().map(|c| (c.name().to_owned(), kind(c.type_()))).collect();
        check(&columns)?;
        let list = columns.iter().map(|(name, kind)| {
            let name = format!("\"{}\"", name.replace('"', "\"\""));
            if *kind == SourceKind::Text { format!("{name}::text AS {name}") } else { name }
        });
        let list = list.collect::<Vec<_>>().join(", ");
        let cursor = format!(
            "DECLARE tidemill_rows NO SCROLL CURSOR FOR SELECT row_to_json(r)::text FROM (SELECT {list} FROM (\n{query}\n) AS q) AS r"
        );
        carried(&mut connection, client.execute(&cursor, &[])).await.map_err(|e| e.context("the query"))?;
        Ok(Self { client, connection, columns, done: false })
    }

    /// Its columns, in order. `numeric` is read as 64 bits of floating point, and what is no number, truth value or time as text.
    pub fn columns(&self) -> &[(String, SourceKind)] {
        &self.columns
    }

    /// The next rows as JSON objects; none after the last.
    pub async fn next(&mut self) -> Result<Vec<String>> {
        if self.done {
            return Ok(Vec::new());
        }
        let fetch = format!("FETCH FORWARD {PORTION} FROM tidemill_rows");
        let rows = carried(&mut self.connection, self.client.query(&fetch, &[])).await.map_err(|e| e.context("the query"))?;
        self.done = rows.is_empty();
        rows.iter().map(|row| row.try_get::<_, String>(0).map_err(from_pg)).collect()
    }
}

fn kind(t: &Type) -> SourceKind {
    match *t {
        Type::BOOL => SourceKind::Bool,
        Type::INT2 | Type::INT4 | Type::INT8 => SourceKind::Int,
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => SourceKind::Real,
        Type::DATE => SourceKind::Date,
        Type::TIMESTAMP => SourceKind::LocalTime,
        Type::TIMESTAMPTZ => SourceKind::Time,
        _ => SourceKind::Text,
    }
}

fn check(columns: &[(String, SourceKind)]) -> Result<()> {
    if columns.is_empty() {
        return Err(Error::invalid("the query answers no rows; give one that begins with SELECT, VALUES, TABLE or WITH"));
    }
    for (at, (name, _)) in columns.iter().enumerate() {
        if columns[..at].iter().any(|(n, _)| n == name) {
            return Err(Error::invalid(format!("the query has two columns `{name}`; give each a name of its own with AS")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_names_of_their_own() {
        let column = |name: &str| (name.to_owned(), SourceKind::Int);
        check(&[column("a"), column("b")]).unwrap();
        assert!(check(&[column("a"), column("b"), column("a")]).unwrap_err().message().contains("`a`"));
        assert!(check(&[]).is_err());
    }
}
