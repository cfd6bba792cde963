//! `grid.archives`.

use async_trait::async_trait;
use tidemill_base::Result;
use tidemill_grid::archive::Standing;
use tidemill_query::{ColumnValues as V, Scan, Scanned, Source, TableData, TableSchema, Type};

use super::reader::Reader;

pub(super) struct Archives(pub(super) Reader);

#[async_trait]
impl Source for Archives {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[
            ("session", Type::Text),
            ("name", Type::Text),
            ("user", Type::Text),
            ("state", Type::Text),
            ("tasks", Type::UInt),
            ("records", Type::UInt),
            ("bytes", Type::UInt),
            ("archived_at", Type::Time),
            ("due_at", Type::Time),
            ("readable_until", Type::Time),
        ])
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let archive = self.0.archive();
        let mut rows = Vec::new();
        for session in archive.sessions().await?.into_iter().filter(|s| want.wants("session", s)) {
            if let Some(manifest) = archive.find(&session).await? {
                rows.push((archive.standing(&session, self.0.env().now()).await?, manifest));
            }
        }
        let fact = |name: &str| V::TextOpt(rows.iter().map(|(_, m)| m.facts[name].as_str().map(str::to_owned)).collect());
        let retrieval = |s: &Standing| match s {
            Standing::Archived => None,
            Standing::Restoring(r) | Standing::Restored(r) => Some(*r),
        };
        let table = TableData::with_rows(rows.len())
            .column("session", V::Text(rows.iter().map(|(_, m)| m.session.clone()).collect()))?
            .column("name", fact("name"))?
            .column("user", fact("user"))?
            .column("state", V::Text(rows.iter().map(|(s, _)| s.as_str().to_owned()).collect()))?
            .column("tasks", V::UInt(rows.iter().map(|(_, m)| m.tasks).collect()))?
            .column("records", V::UInt(rows.iter().map(|(_, m)| m.records).collect()))?
            .column("bytes", V::UInt(rows.iter().map(|(_, m)| m.parts.iter().map(|p| p.bytes).sum()).collect()))?
            .column("archived_at", V::TimeMicros(rows.iter().map(|(_, m)| m.archived_us).collect()))?
            .column("due_at", V::TimeMicrosOpt(rows.iter().map(|(s, _)| retrieval(s).map(|r| r.due_us)).collect()))?
            .column("readable_until", V::TimeMicrosOpt(rows.iter().map(|(s, _)| retrieval(s).map(|r| r.until_us)).collect()))?;
        Ok(table.into())
    }
}
