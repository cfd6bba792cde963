//! Reads and writes of many items, in as few requests as DynamoDB allows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::types::{DeleteRequest, KeysAndAttributes, PutRequest, WriteRequest};
use futures::{StreamExt, TryStreamExt, stream};
use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Change, Item, Key, Write};

use super::item::{item_in, item_out, key_out, size};
use super::write::written;
use super::{DynamoTable, named};
use crate::error::error;

/// DynamoDB's limit for keys in one `BatchGetItem`.
const GET_BATCH: usize = 100;
/// DynamoDB's limit for writes in one `BatchWriteItem`.
const WRITE_BATCH: usize = 25;
/// Requests in flight for one call.
const IN_FLIGHT: usize = 8;

/// The items of `keys`, in their order. DynamoDB refuses a key that is asked for twice, so each is asked for once.
pub(super) async fn get_many(t: &DynamoTable, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
    let physical = t.physical(table)?;
    let distinct: Vec<&Key> = keys.iter().collect::<BTreeSet<_>>().into_iter().collect();
    let asked: Vec<_> = distinct.chunks(GET_BATCH).map(|chunk| get_chunk(t, table, &physical, chunk)).collect();
    let found: Vec<Vec<Item>> = stream::iter(asked).buffer_unordered(IN_FLIGHT).try_collect().await?;
    let found: BTreeMap<Key, Item> = found.into_iter().flatten().filter_map(|i| t.seen(i)).map(|i| (i.key.clone(), i)).collect();
    Ok(keys.iter().map(|k| found.get(k).cloned()).collect())
}

async fn get_chunk(t: &DynamoTable, table: &str, physical: &str, keys: &[&Key]) -> Result<Vec<Item>> {
    let stored = keys.iter().map(|k| key_out(k)).collect::<Result<Vec<_>>>()?;
    let (mut wanted, mut out, mut attempt) = (Some(stored), Vec::new(), 0);
    while let Some(stored) = wanted.take() {
        let asked = KeysAndAttributes::builder().set_keys(Some(stored)).consistent_read(true).build();
        let asked = asked.map_err(|e| Error::internal("a batch of keys lacks a field").with_source(e))?;
        let got = t.inner.dynamo.batch_get_item().request_items(physical, asked).send().await;
        let got = got.map_err(|e| named(table, error(format!("read items of table `{table}`"), e)))?;
        let before = out.len();
        for item in got.responses.into_iter().flatten().flat_map(|(_, items)| items) {
            let item = item_in(physical, item)?;
            t.charge_read("BatchGetItem", size(&item.key, item.value.len()));
            out.push(item);
        }
        wanted = got.unprocessed_keys.and_then(|mut left| left.remove(physical)).map(|left| left.keys).filter(|k| !k.is_empty());
        // Full answers (16 MB) are left off as well as throttled ones; only a batch that does not move is a reason to wait.
        if wanted.is_some() && out.len() == before {
            attempt += 1;
            if !t.inner.pause(attempt).await {
                return Err(Error::unavailable(format!("read items of table `{table}`: DynamoDB leaves keys unprocessed again and again")));
            }
        }
    }
    Ok(out)
}

/// Makes unconditional writes. Of several to one key the last counts: they are in no order, and DynamoDB takes one for each key.
pub(super) async fn write_many(t: &DynamoTable, table: &str, writes: Vec<Write>) -> Result<()> {
    let physical = t.physical(table)?;
    let distinct: BTreeMap<Key, Write> = writes.into_iter().map(|w| (w.key.clone(), w)).collect();
    let distinct: Vec<Write> = distinct.into_values().collect();
    if distinct.is_empty() {
        return Ok(());
    }
    let asked: Vec<_> = distinct.chunks(WRITE_BATCH).map(|chunk| write_chunk(t, table, &physical, chunk)).collect();
    stream::iter(asked).buffer_unordered(IN_FLIGHT).try_collect::<Vec<()>>().await.map(drop)
}

async fn write_chunk(t: &DynamoTable, table: &str, physical: &str, writes: &[Write]) -> Result<()> {
    let mut left = writes.iter().map(|w| request(t, w)).collect::<Result<Vec<_>>>()?;
    for write in writes {
        t.charge_write("BatchWriteItem", written(write), 1);
    }
    let mut attempt = 0;
    loop {
        let asked = left.len();
        let got = t.inner.dynamo.batch_write_item().request_items(physical, left).send().await;
        let got = got.map_err(|e| named(table, error(format!("write items of table `{table}`"), e)))?;
        left = got.unprocessed_items.unwrap_or_default().remove(physical).unwrap_or_default();
        if left.is_empty() {
            return Ok(());
        }
        attempt = if left.len() < asked { 1 } else { attempt + 1 };
        if !t.inner.pause(attempt).await {
            return Err(Error::unavailable(format!("write items of table `{table}`: DynamoDB leaves writes unprocessed again and again")));
        }
    }
}

fn request(t: &DynamoTable, write: &Write) -> Result<WriteRequest> {
    let made = |e: aws_sdk_dynamodb::error::BuildError| Error::internal("a write of a batch lacks a field").with_source(e);
    let request = WriteRequest::builder();
    Ok(match &write.change {
        Change::Put { value, expires_at } => {
            let item: HashMap<_, _> = item_out(&write.key, value, t.versions().next(0), *expires_at)?;
            request.put_request(PutRequest::builder().set_item(Some(item)).build().map_err(made)?).build()
        }
        Change::Delete | Change::Check => {
            request.delete_request(DeleteRequest::builder().set_key(Some(key_out(&write.key)?)).build().map_err(made)?).build()
        }
    })
}
