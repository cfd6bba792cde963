//! The table block: one table of items for all tables, and one of changes.
//!
//! Whoever writes to a partition holds a lock on it until the commit. So conditions can be checked and acted on in one statement,
//! items that are not there included, and the changes of a partition have an order. The locks of a transaction are taken in ascending
//! order before anything is written, so that nobody waits in a circle.
//!
//! The feed is in order of the writing transactions' numbers. A number taken from a sequence would not do: a smaller one may be
//! committed later, when a follower has passed it. Of transaction numbers the server knows the lowest that is still running
//! (`pg_snapshot_xmin`), and below it nothing can appear any more; so a follower reads up to there. Within a partition this is the
//! order of the commits, since a transaction gets its number at its first write, and writes when the one before it has let go of the
//! partition. The price: a long transaction that writes, anywhere on the server, holds the feed back until it ends.

mod feed;
mod group;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Error, Result};
use tidemill_blocks::table::{
    Cursor, FeedPage, Item, Key, MAX_TRANSACTION, Page, Range, Table, Write, check_distinct, check_key, check_name, check_unconditional,
    check_writes,
};
use tokio_postgres::Row;

use crate::Shared;
use crate::error::from_pg;
use crate::link::{Block, Params};
use crate::names::Names;
use crate::time::Time;
use group::Groups;

/// The most items of one page, so that a page of large values fits into memory.
const PAGE: usize = 1000;

const FIND: &str = "SELECT id FROM tidemill_tables WHERE name = $1";
const ENSURE: &str = "INSERT INTO tidemill_tables (name) VALUES ($1) ON CONFLICT DO NOTHING";
const GET: &str = "
SELECT sort, value, version, expires FROM tidemill_items
WHERE tbl = $1 AND partition = $2 AND sort = $3 AND (expires IS NULL OR expires > statement_timestamp())";
const GET_MANY: &str = "
SELECT w.n, i.value, i.version, i.expires FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS w(partition, sort, n)
JOIN tidemill_items i ON i.tbl = $1 AND i.partition = w.partition AND i.sort = w.sort
WHERE i.expires IS NULL OR i.expires > statement_timestamp()";

macro_rules! range {
    ($bounds:literal, $order:literal) => {
        concat!(
            "SELECT sort, value, version, expires FROM tidemill_items WHERE tbl = $1 AND partition = $2 AND sort >= $3 ",
            $bounds,
            " AND (expires IS NULL OR expires > statement_timestamp()) ORDER BY sort ",
            $order
        )
    };
}
const RANGE: [&str; 4] =
    [range!("", "LIMIT $4"), range!("", "DESC LIMIT $4"), range!("AND sort < $5", "LIMIT $4"), range!("AND sort < $5", "DESC LIMIT $4")];

/// All tables of one schema.
#[derive(Debug)]
pub(crate) struct PostgresTable {
    shared: Arc<Shared>,
    names: Names,
    groups: Arc<Groups>,
}

impl PostgresTable {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, names: Names::default(), groups: Arc::default() }
    }

    async fn id(&self, table: &str) -> Result<i32> {
        check_name(table)?;
        let id = self.names.find(&self.shared.link, Block::Table, FIND, table).await?;
        id.ok_or_else(|| Error::not_found(format!("table `{table}` does not exist; make it with ensure")))
    }

    async fn read(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.shared.link.read(Block::Table, sql, params).await
    }
}

/// The item of `key` from columns `at` and on: value, version, expiry.
fn item(key: Key, row: &Row, at: usize) -> Result<Item> {
    let read = || -> Result<_, tokio_postgres::Error> {
        let value = Bytes::copy_from_slice(row.try_get(at)?);
        let version = u64::try_from(row.try_get::<_, i64>(at + 1)?).unwrap_or_default();
        Ok((value, version, row.try_get::<_, Option<Time>>(at + 2)?.map(|t| t.0)))
    };
    let (value, version, expires_at) = read().map_err(from_pg)?;
    Ok(Item { key, value, version, expires_at })
}

#[async_trait]
impl Table for PostgresTable {
    async fn ensure(&self, table: &str) -> Result<()> {
        check_name(table)?;
        if self.names.find(&self.shared.link, Block::Table, FIND, table).await?.is_some() {
            return Ok(());
        }
        self.shared.link.write(Block::Table, ENSURE, &[&table]).await.map(drop)
    }

    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        let id = self.id(table).await?;
        check_key(key)?;
        let rows = self.read(GET, &[&id, &key.partition.as_bytes(), &&key.sort[..]]).await?;
        rows.first().map(|row| item(key.clone(), row, 1)).transpose()
    }

    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        let id = self.id(table).await?;
        keys.iter().try_for_each(check_key)?;
        let mut out = vec![None; keys.len()];
        if keys.is_empty() {
            return Ok(out);
        }
        let (partitions, sorts): (Vec<&[u8]>, Vec<&[u8]>) = keys.iter().map(|k| (k.partition.as_bytes(), &k.sort[..])).unzip();
        for row in self.read(GET_MANY, &[&id, &partitions, &sorts]).await? {
            let n: i64 = row.try_get(0).map_err(from_pg)?;
            let at = usize::try_from(n - 1).unwrap_or(usize::MAX);
            if let (Some(key), Some(place)) = (keys.get(at), out.get_mut(at)) {
                *place = Some(item(key.clone(), &row, 1)?);
            }
        }
        Ok(out)
    }

    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        let id = self.id(table).await?;
        check_writes(&writes, MAX_TRANSACTION)?;
        check_distinct(&writes)?;
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.groups.submit(&self.shared, id, writes).await
    }

    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        let id = self.id(table).await?;
        check_writes(&writes, usize::MAX)?;
        check_unconditional(&writes)?;
        for some in write::batches(&writes) {
            write::apply(&self.shared, id, &[&some]).await?;
        }
        Ok(())
    }

    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        if range.limit == 0 {
            return Err(Error::invalid("a range of 0 items reads nothing; ask for 1 or more"));
        }
        let id = self.id(table).await?;
        let limit = range.limit.min(PAGE);
        let sql = RANGE[usize::from(range.until.is_some()) * 2 + usize::from(range.reverse)];
        let (partition, from, count) = (range.partition.as_bytes(), &range.from[..], i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = match &range.until {
            None => self.read(sql, &[&id, &partition, &from, &count]).await?,
            Some(until) => self.read(sql, &[&id, &partition, &from, &count, &&until[..]]).await?,
        };
        let read = |row: &Row| {
            let sort: &[u8] = row.try_get(0).map_err(from_pg)?;
            item(Key::new(range.partition.clone(), sort.to_vec()), row, 1)
        };
        let items: Vec<Item> = rows.iter().map(read).collect::<Result<_>>()?;
        let next = (items.len() == limit).then(|| after(range.clone(), items.last())).flatten();
        Ok(Page { items, next })
    }

    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        feed::end(&self.shared, self.id(table).await?).await
    }

    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        let id = self.id(table).await?;
        feed::follow(&self.shared, id, feed::parse(after)?, max.clamp(1, PAGE), wait).await
    }
}

/// What is left of `range` behind its last item.
fn after(range: Range, last: Option<&Item>) -> Option<Range> {
    let last = &last?.key.sort;
    Some(if range.reverse {
        range.until(last.clone())
    } else {
        let mut from = last.to_vec();
        from.push(0);
        range.from(from)
    })
}
