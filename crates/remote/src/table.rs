//! The table block over the wire.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::Result;
use tidemill_blocks::table::{Change, Cursor, FeedPage, Item, Key, MAX_TRANSACTION, Page, Range, Table, Write, check_writes};

use crate::http::Http;
use crate::wire::table as call;

/// Keys in one `get-many`, so that an answer of the largest items stays within memory on both sides.
const KEYS_A_CALL: usize = 100;
/// Bytes of values in one `write-many`.
const BYTES_A_CALL: usize = 8 << 20;

/// The manager's table.
#[derive(Debug)]
pub(crate) struct RemoteTable {
    pub(crate) http: Http,
}

#[async_trait]
impl Table for RemoteTable {
    async fn ensure(&self, table: &str) -> Result<()> {
        self.http.call(&call::Ensure { table: table.to_owned() }).await
    }

    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        self.http.call(&call::Get { table: table.to_owned(), key: key.clone() }).await
    }

    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        let mut out = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_A_CALL) {
            out.extend(self.http.call(&call::GetMany { table: table.to_owned(), keys: keys.to_vec() }).await?);
        }
        Ok(out)
    }

    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        // Checked here as well, so that what will be refused does not travel first.
        check_writes(&writes, MAX_TRANSACTION)?;
        self.http.call(&call::Transact { table: table.to_owned(), writes }).await
    }

    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        check_writes(&writes, usize::MAX)?;
        for writes in portions(writes) {
            self.http.call(&call::WriteMany { table: table.to_owned(), writes }).await?;
        }
        Ok(())
    }

    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        self.http.call(&call::Range { table: table.to_owned(), range }).await
    }

    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        self.http.call(&call::FeedEnd { table: table.to_owned() }).await
    }

    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        self.http.call(&call::Feed { table: table.to_owned(), after: after.clone(), max, wait }).await
    }
}

/// Cuts writes into calls of at most [`BYTES_A_CALL`], with at least one write each.
fn portions(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let (mut out, mut current, mut bytes) = (Vec::new(), Vec::new(), 0);
    for write in writes {
        let size = write.key.partition.len() + write.key.sort.len() + value_len(&write) + 64;
        if bytes + size > BYTES_A_CALL && !current.is_empty() {
            out.push(std::mem::take(&mut current));
            bytes = 0;
        }
        bytes += size;
        current.push(write);
    }
    if !current.is_empty() {
        out.push(current);
    }
    out
}

fn value_len(write: &Write) -> usize {
    match &write.change {
        Change::Put { value, .. } => value.len(),
        Change::Delete | Change::Check => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_blocks::table::Condition;

    #[test]
    fn portions_keep_every_write_in_order_and_within_the_limit() {
        let write = |n: u32| Write::put(Key::new(format!("p{n}"), "s"), vec![0; 300 * 1024], Condition::Any);
        let all: Vec<Write> = (0..100).map(write).collect();
        let cut = portions(all.clone());
        assert!(cut.len() >= 4 && cut.iter().all(|p| p.iter().map(value_len).sum::<usize>() <= BYTES_A_CALL));
        assert_eq!(cut.concat(), all);
        assert!(portions(Vec::new()).is_empty());
    }
}
