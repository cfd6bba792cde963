//! A table whose calls go wrong.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::Result;
use tidemill_blocks::table::{Cursor, FeedPage, Item, Key, Page, Range, Table, Write};

use super::{Component, Fault};

#[derive(Debug)]
pub(super) struct FaultyTable {
    pub(super) inner: Arc<dyn Table>,
    pub(super) component: Component,
}

impl FaultyTable {
    fn shortened(&self, most: usize) -> usize {
        let faults = self.component.faults();
        if most > 1 && faults.strikes(Fault::Shortened, |p| p.shorten) { faults.at_most(most) } else { most }
    }
}

#[async_trait]
impl Table for FaultyTable {
    async fn ensure(&self, table: &str) -> Result<()> {
        self.component.call("table.ensure", self.inner.ensure(table)).await
    }

    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        self.component.call("table.get", self.inner.get(table, key)).await
    }

    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.component.call("table.get_many", self.inner.get_many(table, keys)).await
    }

    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        self.component.call("table.transact", self.inner.transact(table, writes)).await
    }

    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        // Of a failed call some writes may have happened, any of them.
        let mut some = writes.clone();
        self.component.faults().shuffle(&mut some);
        some.truncate(self.component.faults().at_most(some.len()));
        self.component.call_or("table.write_many", self.inner.write_many(table, writes), self.inner.write_many(table, some)).await
    }

    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        let limit = range.limit;
        let short = Range { limit: self.shortened(limit), ..range };
        let mut page = self.component.call("table.range", self.inner.range(table, short)).await?;
        if let Some(next) = &mut page.next {
            next.limit = limit;
        }
        Ok(page)
    }

    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        self.component.call("table.feed_end", self.inner.feed_end(table)).await
    }

    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        let max = self.shortened(max);
        self.component.call("table.feed", self.inner.feed(table, after, max, wait)).await
    }
}
