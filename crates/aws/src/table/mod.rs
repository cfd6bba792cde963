//! The table on DynamoDB: one DynamoDB table for each of ours, charged by the request.
//!
//! | ours | DynamoDB's |
//! |---|---|
//! | a write | `PutItem` or `DeleteItem` with a condition expression |
//! | several writes in one transaction | `TransactWriteItems`, up to 100 items and 4 MB, twice the price |
//! | `write_many` | `BatchWriteItem`, 25 at a time |
//! | `get`, `get_many`, `range` | `GetItem`, `BatchGetItem`, `Query`, all strongly consistent |
//! | expiry | the item's `x`, looked at in every condition and every answer; DynamoDB removes the item later |
//! | the change feed | DynamoDB Streams |
//!
//! The role needs, on tables that begin with the prefix and on their streams: `dynamodb:` `CreateTable`, `DescribeTable`,
//! `DescribeTimeToLive`, `UpdateTimeToLive`, `GetItem`, `BatchGetItem`, `Query`, `PutItem`, `DeleteItem`, `BatchWriteItem`,
//! `ConditionCheckItem`, `DescribeStream`, `GetShardIterator`, `GetRecords`; and `ListTables` for [`Aws::check`].
//!
//! `versions` says how versions grow without a request of their own, `item` what is stored, `write` how an answer that was lost
//! is told from a condition that did not hold, and `feed` why the feed is a stream.

mod batch;
mod condition;
mod feed;
mod item;
mod range;
mod schema;
mod shards;
mod tail;
mod versions;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_blocks::table::{
    Change, Condition, Cursor, FeedPage, Item, Key, MAX_TRANSACTION, Page, Range, Table, Write, check_distinct, check_key, check_name,
    check_unconditional, check_writes,
};

use crate::connect::{Aws, Inner};
use crate::error::error;
use item::{is_live, item_in, key_out, size};
use tail::Tails;
use versions::Versions;

pub(crate) use schema::describe;

/// A strongly consistent read unit covers so many bytes.
const READ_UNIT_BYTES: u64 = 4096;
/// A write unit covers so many bytes.
const WRITE_UNIT_BYTES: u64 = 1024;
/// The longest wait for a change.
const MAX_WAIT: Duration = Duration::from_secs(20);

impl Aws {
    /// The table block on DynamoDB.
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::new(DynamoTable { inner: self.inner.clone() })
    }
}

/// The table block on DynamoDB; see the module's documentation.
#[derive(Debug)]
pub(crate) struct DynamoTable {
    inner: Arc<Inner>,
}

/// What all of a process's [`DynamoTable`]s share.
#[derive(Debug)]
pub(crate) struct Shared {
    versions: Versions,
    /// The stream of each table whose feed was asked for.
    streams: Mutex<BTreeMap<String, String>>,
    tails: Tails,
}

impl Shared {
    pub(crate) fn new(env: &Env) -> Self {
        Self { versions: Versions::new(env.clone()), streams: Mutex::default(), tails: Tails::new(env) }
    }
}

impl DynamoTable {
    /// DynamoDB's name of a table. Ours have no other characters than DynamoDB's.
    fn physical(&self, table: &str) -> Result<String> {
        check_name(table)?;
        Ok(self.inner.table_name(table))
    }

    /// Charges for reading `bytes` in one request.
    fn charge_read(&self, operation: &str, bytes: u64) {
        self.inner.calls.charge("dynamodb", operation, bytes.div_ceil(READ_UNIT_BYTES).max(1));
    }

    fn charge_write(&self, operation: &str, bytes: u64, times: u64) {
        self.inner.calls.charge("dynamodb", operation, bytes.div_ceil(WRITE_UNIT_BYTES).max(1) * times);
    }

    /// Notes the item's version; the item itself unless it has expired.
    fn seen(&self, item: Item) -> Option<Item> {
        self.versions().saw(item.version);
        Some(item).filter(|i| is_live(i, self.inner.env.now()))
    }

    /// The stored item, expired or not, as the newest write left it.
    async fn read(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        let physical = self.physical(table)?;
        check_key(key)?;
        let asked = self.inner.dynamo.get_item().table_name(&physical).set_key(Some(key_out(key)?)).consistent_read(true);
        let got = asked.send().await.map_err(|e| named(table, error(format!("read an item of table `{table}`"), e)))?;
        let item = got.item.map(|stored| item_in(&physical, stored)).transpose()?;
        self.charge_read("GetItem", item.as_ref().map_or(0, |i| size(&i.key, i.value.len())));
        Ok(item)
    }

    fn versions(&self) -> &Versions {
        &self.inner.table.versions
    }

    fn tails(&self) -> &Tails {
        &self.inner.table.tails
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.inner.table.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// DynamoDB's name of the table that we call `table`.
    pub(crate) fn table_name(&self, table: &str) -> String {
        format!("{}-{table}", self.settings.prefix)
    }
}

/// Says which of our tables is missing, and what to do.
fn named(table: &str, e: Error) -> Error {
    if e.kind() == ErrorKind::NotFound {
        Error::not_found(format!("table `{table}` does not exist; make it with ensure")).with_source(e)
    } else {
        e
    }
}

#[async_trait]
impl Table for DynamoTable {
    async fn ensure(&self, table: &str) -> Result<()> {
        schema::ensure(&self.inner, &self.physical(table)?).await.map(drop)
    }

    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        Ok(self.read(table, key).await?.and_then(|item| self.seen(item)))
    }

    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        keys.iter().try_for_each(check_key)?;
        batch::get_many(self, table, keys).await
    }

    async fn transact(&self, table: &str, mut writes: Vec<Write>) -> Result<Vec<u64>> {
        check_writes(&writes, MAX_TRANSACTION)?;
        check_distinct(&writes)?;
        let physical = self.physical(table)?;
        // A check of nothing is nothing; DynamoDB would refuse it.
        let counted = writes.len();
        let kept: Vec<usize> =
            (0..counted).filter(|&i| !(writes[i].change == Change::Check && writes[i].condition == Condition::Any)).collect();
        let mut at = 0;
        writes.retain(|_| {
            at += 1;
            kept.contains(&(at - 1))
        });
        let versions = match &writes[..] {
            [] => Vec::new(),
            [one] => vec![write::one(self, table, &physical, one).await?],
            many => write::all(self, table, &physical, many).await?,
        };
        let mut out = vec![0; counted];
        for (place, version) in kept.into_iter().zip(versions) {
            out[place] = version;
        }
        Ok(out)
    }

    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        check_writes(&writes, usize::MAX)?;
        check_unconditional(&writes)?;
        batch::write_many(self, table, writes).await
    }

    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        if range.limit == 0 {
            return Err(Error::invalid("a page of 0 items; ask for at least 1"));
        }
        range::page(self, table, range).await
    }

    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        feed::end(self, table).await
    }

    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        if wait > MAX_WAIT {
            return Err(Error::invalid(format!("cannot wait {wait:?} for a change; wait {MAX_WAIT:?} at most and ask again")));
        }
        feed::read(self, table, after, max.max(1), wait).await
    }
}
