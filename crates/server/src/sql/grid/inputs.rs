//! `grid.inputs`.

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidemill_base::Result;
use tidemill_batch::protocol::Submission;
use tidemill_query::{ColumnValues as V, Pages, Rows, Scan, Scanned, Source, TableData, TableSchema, Type};

use super::reader::{Reader, Session, json_text};

pub(super) struct Inputs(pub(super) Reader);

#[async_trait]
impl Source for Inputs {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[("session", Type::Text), ("task", Type::UInt), ("bytes", Type::UInt), ("value", Type::Text)])
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let sessions = self.0.wanted(want).await?;
        let reader = self.0.clone();
        let pages = Pages::new(move || {
            let reader = reader.clone();
            stream::iter(sessions.clone()).flat_map(move |session| {
                let found = reader.submissions(&session);
                found.and_then(move |(first, submission)| futures::future::ready(table(&session, first, &submission).map(Rows::Table)))
            })
        });
        Ok(pages.into())
    }
}

fn table(session: &Session, first: u64, submission: &Submission) -> Result<TableData> {
    let n = submission.len();
    let payload = |at: usize| submission.payload(at).unwrap_or_default();
    TableData::with_rows(n)
        .column("session", V::Dict { rows: vec![0; n], words: vec![session.id.clone()] })?
        .column("task", V::UInt((first..).take(n).collect()))?
        .column("bytes", V::UInt((0..n).map(|at| payload(at).len() as u64).collect()))?
        .column("value", V::TextOpt((0..n).map(|at| json_text(session.input(), &payload(at))).collect()))
}
