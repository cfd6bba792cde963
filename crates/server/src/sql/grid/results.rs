//! `grid.results`.

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidemill_base::Result;
use tidemill_grid::{Outcome, Record};
use tidemill_query::{ColumnValues as V, Pages, Rows, Scan, Scanned, Source, TableData, TableSchema, Type};

use super::reader::{Reader, Session, json_text};

pub(super) struct Results(pub(super) Reader);

#[async_trait]
impl Source for Results {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[
            ("session", Type::Text),
            ("task", Type::UInt),
            ("attempt", Type::UInt),
            ("run_us", Type::UInt),
            ("made_by", Type::Text),
            ("bytes", Type::UInt),
            ("value", Type::Text),
        ])
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let sessions = self.0.wanted(want).await?;
        let (reader, bodies) = (self.0.clone(), want.reads("value"));
        let pages = Pages::new(move || {
            let reader = reader.clone();
            stream::iter(sessions.clone()).flat_map(move |session| {
                let records = reader.records(&session, 0, bodies);
                records.and_then(move |(_, page)| futures::future::ready(table(&session, &page, bodies).map(Rows::Table)))
            })
        });
        Ok(pages.into())
    }
}

fn table(session: &Session, page: &[Record], bodies: bool) -> Result<TableData> {
    let rows: Vec<(&Record, u32, &[u8])> = page
        .iter()
        .filter_map(|r| match &r.outcome {
            Outcome::Value(len, bytes) => Some((r, *len, bytes.as_ref())),
            Outcome::Failed { .. } | Outcome::Cancelled { .. } => None,
        })
        .collect();
    let numbers = |f: fn(&Record) -> u64| V::UInt(rows.iter().map(|(r, ..)| f(r)).collect());
    let table = TableData::with_rows(rows.len())
        .column("session", V::Dict { rows: vec![0; rows.len()], words: vec![session.id.clone()] })?
        .column("task", numbers(|r| r.task))?
        .column("attempt", numbers(|r| u64::from(r.attempt)))?
        .column("run_us", numbers(|r| r.run_us))?
        .column("made_by", V::Text(rows.iter().map(|(r, ..)| r.made_by.to_string()).collect()))?
        .column("bytes", V::UInt(rows.iter().map(|(_, len, _)| u64::from(*len)).collect()))?;
    if !bodies {
        return Ok(table);
    }
    table.column("value", V::TextOpt(rows.iter().map(|(.., bytes)| json_text(session.output(), bytes)).collect()))
}
