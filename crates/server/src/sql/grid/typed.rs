//! `grid.<session>`: a session's results as rows with real columns.
//!
//! The columns of results in JSON are those that the results have; each result is looked at once, and what was learned is remembered, so
//! that asking again while the session runs looks at what is new alone. A statement reads what there was when it began.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidemill_base::{Error, Result};
use tidemill_grid::Record;
use tidemill_query::arrow::datatypes::SchemaRef;
use tidemill_query::{ArrowRows, Family, JsonRows, Pages, Rows, Scan, Scanned, Source, TableSchema};

use super::reader::{Reader, Session};

/// Sessions whose columns are remembered.
const REMEMBERED: usize = 256;

/// The family of tables.
pub(super) struct Sessions {
    reader: Reader,
    known: Mutex<BTreeMap<String, Known>>,
}

/// What is known of a session's columns, from its deliveries up to one.
#[derive(Debug, Clone, Default)]
struct Known {
    until: u64,
    json: JsonRows,
    arrow: Option<ArrowRows>,
}

impl Sessions {
    pub(super) const fn new(reader: Reader) -> Self {
        Self { reader, known: Mutex::new(BTreeMap::new()) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what has been delivered since the last look.
    async fn learn(&self, session: &Session) -> Result<Known> {
        // An archive counts its parts where a session counts its deliveries.
        let key = if session.row.is_some() { session.id.clone() } else { format!("{} archived", session.id) };
        let mut known = self.known().get(&key).cloned().unwrap_or_default();
        let arrow = session.output() == "arrow";
        let mut records = self.reader.records(session, known.until, true);
        while let Some((n, page)) = records.try_next().await? {
            for (task, bytes) in page.iter().filter_map(|r| Some((r.task, r.value()?))) {
                if !arrow {
                    known.json.learn(task, bytes)?;
                } else if known.arrow.is_none() {
                    known.arrow = Some(ArrowRows::learn(task, bytes)?);
                }
            }
            known.until = n;
        }
        let mut all = self.known();
        if all.len() >= REMEMBERED && !all.contains_key(&key) {
            all.pop_first();
        }
        all.insert(key, known.clone());
        Ok(known)
    }
}

#[async_trait]
impl Family for Sessions {
    async fn table(&self, name: &str) -> Result<Arc<dyn Source>> {
        let session = self.reader.session(name).await.map_err(|e| e.context(format!("table `grid.{name}`")))?;
        let output = session.output();
        if output == "pickle" {
            return Err(Error::invalid(format!(
                "session {name} gives results as pickle, which only Python reads; open sessions with `output` json or arrow to have them in SQL"
            )));
        }
        let known = self.learn(&session).await?;
        Ok(Arc::new(Typed { reader: self.reader.clone(), session, known }))
    }
}

/// One of them.
struct Typed {
    reader: Reader,
    session: Session,
    known: Known,
}

#[async_trait]
impl Source for Typed {
    fn schema(&self) -> TableSchema {
        self.known.json.schema()
    }

    fn arrow_schema(&self) -> Option<SchemaRef> {
        self.known.arrow.as_ref().map(ArrowRows::schema)
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let (reader, session, known, want) = (self.reader.clone(), self.session.clone(), self.known.clone(), want.clone());
        let pages = Pages::new(move || {
            let (known, want) = (known.clone(), want.clone());
            let until = known.until;
            reader
                .records(&session, 0, true)
                .try_take_while(move |(n, _)| futures::future::ready(Ok(*n <= until)))
                .and_then(move |(_, page)| futures::future::ready(rows(&known, &page, &want)))
                .flat_map(|rows| match rows {
                    Ok(rows) => stream::iter(rows.into_iter().map(Ok).collect::<Vec<_>>()),
                    Err(e) => stream::iter(vec![Err(e)]),
                })
        });
        Ok(pages.into())
    }
}

fn rows(known: &Known, page: &[Record], want: &Scan) -> Result<Vec<Rows>> {
    let values = page.iter().filter_map(|r| Some((r.task, r.value()?)));
    let Some(arrow) = &known.arrow else {
        return Ok(vec![Rows::Table(known.json.rows(values.map(|(task, bytes)| (task, bytes.as_ref())), want)?)]);
    };
    let mut out = Vec::new();
    for (task, bytes) in values {
        out.extend(arrow.rows(task, bytes)?.into_iter().map(Rows::Arrow));
    }
    Ok(out)
}
