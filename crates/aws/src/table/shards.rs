//! DynamoDB Streams: shards, iterators, records.

use std::collections::HashMap;

use aws_sdk_dynamodbstreams::error::ProvideErrorMetadata;
use aws_sdk_dynamodbstreams::types::{AttributeValue, Record, ShardIteratorType};
use bytes::Bytes;
use tidemill_base::{Error, Result};
use tidemill_blocks::table::{FeedEntry, Key};

use super::item::{PARTITION, SORT, VALUE, VERSION, sort_in};
use crate::connect::Inner;
use crate::error::error;

/// DynamoDB's limit for records in one answer.
const RECORDS: usize = 1000;

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    /// Nothing is added any more; its children go on.
    pub(super) closed: bool,
}

/// Where to begin in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// At the oldest record kept.
    Oldest,
    /// Behind the newest record.
    Newest,
    /// Behind this record.
    After(String),
}

/// What one request for records brought.
#[derive(Debug)]
pub(super) enum Got {
    /// Records in order, each with its number and its time in seconds, and where to go on; `None`: the shard has ended.
    Records(Vec<Change>, Option<String>),
    /// The iterator is too old; make another.
    Expired,
}

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) number: String,
    pub(super) second: i64,
    /// `None` when it is not to be told: DynamoDB removed what had expired.
    pub(super) entry: Option<FeedEntry>,
}

impl Change {
    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let value = |e: &FeedEntry| e.key.partition.len() + e.key.sort.len() + e.value.as_ref().map_or(0, Bytes::len);
        100 + self.entry.as_ref().map_or(0, value)
    }
}

/// All shards of a stream.
pub(super) async fn list(inner: &Inner, stream: &str) -> Result<Vec<Shard>> {
    let (mut out, mut from) = (Vec::new(), None);
    loop {
        let got = inner.streams.describe_stream().stream_arn(stream).set_exclusive_start_shard_id(from).send().await;
        let got = got.map_err(|e| error(format!("list the shards of stream `{stream}`"), e))?;
        let Some(found) = got.stream_description else { return Ok(out) };
        for shard in found.shards.unwrap_or_default() {
            let closed = shard.sequence_number_range.is_some_and(|r| r.ending_sequence_number.is_some());
            if let Some(id) = shard.shard_id {
                out.push(Shard { id, parent: shard.parent_shard_id, closed });
            }
        }
        from = found.last_evaluated_shard_id.filter(|id| !id.is_empty());
        if from.is_none() {
            return Ok(out);
        }
    }
}

/// An iterator, good for 15 minutes. `None` when the place is no longer kept, or the shard is gone.
pub(super) async fn iterator(inner: &Inner, stream: &str, shard: &str, from: &From) -> Result<Option<String>> {
    let asked = inner.streams.get_shard_iterator().stream_arn(stream).shard_id(shard);
    let asked = match from {
        From::Oldest => asked.shard_iterator_type(ShardIteratorType::TrimHorizon),
        From::Newest => asked.shard_iterator_type(ShardIteratorType::Latest),
        From::After(number) => asked.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).sequence_number(number),
    };
    match asked.send().await {
        Ok(got) => Ok(got.shard_iterator),
        Err(e) => match e.as_service_error().and_then(ProvideErrorMetadata::code) {
            Some("TrimmedDataAccessException" | "ResourceNotFoundException") => Ok(None),
            _ => Err(error(format!("find a place in stream `{stream}`"), e)),
        },
    }
}

/// Up to `max` records from an iterator on.
pub(super) async fn records(inner: &Inner, stream: &str, iterator: &str, max: usize) -> Result<Got> {
    let limit = i32::try_from(max.clamp(1, RECORDS)).unwrap_or(i32::MAX);
    match inner.streams.get_records().shard_iterator(iterator).limit(limit).send().await {
        Ok(got) => {
            let changes = got.records.unwrap_or_default().into_iter().map(|r| change(stream, r)).collect::<Result<_>>()?;
            Ok(Got::Records(changes, got.next_shard_iterator.filter(|next| !next.is_empty())))
        }
        Err(e) => match e.as_service_error().and_then(ProvideErrorMetadata::code) {
            Some("ExpiredIteratorException" | "TrimmedDataAccessException" | "ResourceNotFoundException") => Ok(Got::Expired),
            _ => Err(error(format!("read stream `{stream}`"), e)),
        },
    }
}

fn change(stream: &str, record: Record) -> Result<Change> {
    let lacks = |what: &str| Error::corrupt(format!("a record of stream `{stream}` lacks {what}; the table is not one of ours"));
    let expired = record.user_identity.is_some_and(|by| by.principal_id.as_deref() == Some("dynamodb.amazonaws.com"));
    let told = record.dynamodb.ok_or_else(|| lacks("its change"))?;
    let number = told.sequence_number.ok_or_else(|| lacks("its number"))?;
    let second = told.approximate_creation_date_time.map_or(i64::MAX, |at| at.secs());
    let keys = told.keys.ok_or_else(|| lacks("its key"))?;
    let key = match (keys.get(PARTITION), keys.get(SORT)) {
        (Some(AttributeValue::S(p)), Some(AttributeValue::B(s))) => Key { partition: p.clone(), sort: sort_in(s.as_ref()) },
        _ => return Err(lacks("its key")),
    };
    let entry = match (told.new_image.filter(|i| !i.is_empty()), told.old_image) {
        (Some(new), _) => {
            let Some(AttributeValue::B(value)) = new.get(VALUE) else { return Err(lacks("its value")) };
            let version = version(&new).ok_or_else(|| lacks("its version"))?;
            FeedEntry { key, value: Some(Bytes::copy_from_slice(value.as_ref())), version }
        }
        // A removal has no version of its own: it is above that of what was removed.
        (None, old) => FeedEntry { key, value: None, version: old.as_ref().and_then(version).unwrap_or(0) + 1 },
    };
    Ok(Change { number, second, entry: Some(entry).filter(|_| !expired) })
}

fn version(image: &HashMap<String, AttributeValue>) -> Option<u64> {
    match image.get(VERSION) {
        Some(AttributeValue::N(n)) => n.parse().ok(),
        _ => None,
    }
}
