//! Conditional writes, one and several.
//!
//! Two answers look alike and must not be taken for each other. A condition did not hold because somebody else was first; or it
//! did not hold because *this very write* took effect, its answer was lost, and it was sent again. So:
//!
//! - A single write is sent by a client that does not repeat anything by itself. When a try has ended without a clear answer and
//!   the next is refused, the stored item is held against ours: the same version and value means that the first try did it. If the
//!   item is another, whether ours was there in between cannot be known, and the answer is `Unavailable`, never `Conflict`.
//! - A transaction carries a `ClientRequestToken`. DynamoDB answers a repetition within ten minutes as it answered the first.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Delete, Put, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use tidemill_base::{Error, ErrorKind, Result, Timestamp};
use tidemill_blocks::table::{Change, Condition, Item, Write};

use super::condition::{Expression, expression, holds};
use super::item::{Attributes, item_in, item_out, key_out, size};
use super::{DynamoTable, named};
use crate::calls::is_throttling;
use crate::error::error;

/// DynamoDB's limit for all items of one transaction.
const MAX_TRANSACTION_BYTES: u64 = 4 * 1024 * 1024;

/// How one try of one write ended.
enum Tried {
    Done,
    /// Refused because of what is stored, if that is known.
    Refused(Option<Item>),
    /// Not done, for a passing reason.
    Passing(Error),
    /// Nothing is known.
    Unclear(Error),
    Failed(Error),
}

/// Makes one write; its new version, 0 for deletes and checks.
pub(super) async fn one(t: &DynamoTable, table: &str, physical: &str, write: &Write) -> Result<u64> {
    if write.change == Change::Check {
        return check(t, table, write).await;
    }
    let mut version = first_version(t, write);
    let (mut unclear, mut attempt) = (false, 0);
    loop {
        let now = t.inner.env.now();
        let e = match send(t, table, physical, write, version, now).await {
            Tried::Done => return Ok(version),
            Tried::Failed(e) => return Err(e),
            Tried::Refused(stored) if unclear => {
                return match stored {
                    Some(item) if is_ours(write, version, &item) => Ok(version),
                    // Writing again over whatever is there is what an unconditional write means.
                    _ if write.condition == Condition::Any => {
                        version = t.versions().next(stored.map_or(version, |i| i.version));
                        unclear = false;
                        continue;
                    }
                    _ => Err(Error::unavailable(format!(
                        "write to partition `{}` of table `{table}`: the answer was lost, and the item has changed since; read it again",
                        write.key.partition
                    ))),
                };
            }
            Tried::Refused(stored) => {
                if !holds(write.condition, stored.as_ref(), now) {
                    return Err(conflict(table, write));
                }
                // Only the version was too low: another client's clock is ahead.
                version = t.versions().next(stored.map_or(version, |i| i.version));
                Error::unavailable(format!("write to table `{table}`: other clients' clocks run ahead of ours again and again"))
            }
            Tried::Passing(e) => e,
            Tried::Unclear(e) => {
                unclear = true;
                e
            }
        };
        attempt += 1;
        if !t.inner.pause(attempt).await {
            return Err(e);
        }
    }
}

fn is_ours(write: &Write, version: u64, stored: &Item) -> bool {
    matches!(&write.change, Change::Put { value, .. } if stored.version == version && stored.value == *value)
}

/// The version to try first: a put over a known version must be above it.
fn first_version(t: &DynamoTable, write: &Write) -> u64 {
    match (&write.change, write.condition) {
        (Change::Put { .. }, Condition::Version(was)) => t.versions().next(was),
        (Change::Put { .. }, _) => t.versions().next(0),
        _ => 0,
    }
}

fn conflict(table: &str, write: &Write) -> Error {
    Error::conflict(format!("{:?} does not hold for `{}` in table `{table}`; read it again", write.condition, write.key.partition))
}

/// A check by itself is a read.
async fn check(t: &DynamoTable, table: &str, write: &Write) -> Result<u64> {
    let item = t.read(table, &write.key).await?.and_then(|item| t.seen(item));
    if write.condition.holds(item.map(|i| i.version)) { Ok(0) } else { Err(conflict(table, write)) }
}

async fn send(t: &DynamoTable, table: &str, physical: &str, write: &Write, version: u64, now: Timestamp) -> Tried {
    match &write.change {
        Change::Put { .. } => put(t, table, physical, write, version, now).await,
        _ => delete(t, table, physical, write, now).await,
    }
}

async fn put(t: &DynamoTable, table: &str, physical: &str, write: &Write, version: u64, now: Timestamp) -> Tried {
    let item = match stored_form(write, version) {
        Ok(item) => item,
        Err(e) => return Tried::Failed(e),
    };
    let (text, values) = split(expression(write.condition, Some(version), now));
    let asked = t.inner.dynamo_once.put_item().table_name(physical).set_item(Some(item));
    let asked = asked.set_condition_expression(text).set_expression_attribute_values(values);
    let asked = asked.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    t.charge_write("PutItem", written(write), 1);
    match asked.send().await {
        Ok(_) => Tried::Done,
        Err(e) => match e.as_service_error() {
            Some(aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(refused)) => {
                refused_by(t, physical, refused.item.clone())
            }
            _ => unfinished(table, error(format!("write to table `{table}`"), e)),
        },
    }
}

async fn delete(t: &DynamoTable, table: &str, physical: &str, write: &Write, now: Timestamp) -> Tried {
    let key = match key_out(&write.key) {
        Ok(key) => key,
        Err(e) => return Tried::Failed(e),
    };
    let (text, values) = split(expression(write.condition, None, now));
    let asked = t.inner.dynamo_once.delete_item().table_name(physical).set_key(Some(key));
    let asked = asked.set_condition_expression(text).set_expression_attribute_values(values);
    // The old item tells its version, above which this client goes on; see `versions`.
    let asked = asked.return_values(ReturnValue::AllOld);
    let asked = asked.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    t.charge_write("DeleteItem", written(write), 1);
    match asked.send().await {
        Ok(done) => {
            if let Some(Ok(old)) = done.attributes.map(|old| item_in(physical, old)) {
                t.versions().saw(old.version);
            }
            Tried::Done
        }
        Err(e) => match e.as_service_error() {
            Some(aws_sdk_dynamodb::operation::delete_item::DeleteItemError::ConditionalCheckFailedException(refused)) => {
                refused_by(t, physical, refused.item.clone())
            }
            _ => unfinished(table, error(format!("delete from table `{table}`"), e)),
        },
    }
}

/// The item that stood in the way.
fn refused_by(t: &DynamoTable, physical: &str, stored: Option<Attributes>) -> Tried {
    match stored.filter(|s| !s.is_empty()).map(|s| item_in(physical, s)).transpose() {
        Ok(item) => {
            if let Some(item) = &item {
                t.versions().saw(item.version);
            }
            Tried::Refused(item)
        }
        Err(e) => Tried::Failed(e),
    }
}

/// Sorts errors by whether the write may have happened.
fn unfinished(table: &str, e: Error) -> Tried {
    if e.kind() != ErrorKind::Unavailable {
        return Tried::Failed(named(table, e));
    }
    let refused = is_throttling(e.message()) || e.message().contains("TransactionConflictException");
    if refused { Tried::Passing(e) } else { Tried::Unclear(e) }
}

fn stored_form(write: &Write, version: u64) -> Result<Attributes> {
    match &write.change {
        Change::Put { value, expires_at } => item_out(&write.key, value, version, *expires_at),
        Change::Delete | Change::Check => key_out(&write.key),
    }
}

/// Bytes that the write is charged for; what a delete removes is not known here and counts as its key.
pub(super) fn written(write: &Write) -> u64 {
    match &write.change {
        Change::Put { value, .. } => size(&write.key, value.len()),
        Change::Delete | Change::Check => size(&write.key, 0),
    }
}

type Parts = (Option<String>, Option<Attributes>);

fn split(e: Option<Expression>) -> Parts {
    e.map_or((None, None), |e| (Some(e.text), Some(e.values).filter(|v| !v.is_empty())))
}

/// Makes several writes, all or none; their new versions.
pub(super) async fn all(t: &DynamoTable, table: &str, physical: &str, writes: &[Write]) -> Result<Vec<u64>> {
    let bytes: u64 = writes.iter().map(written).sum();
    if bytes > MAX_TRANSACTION_BYTES {
        return Err(Error::invalid(format!(
            "a transaction of {bytes} bytes on table `{table}` is over DynamoDB's limit of {MAX_TRANSACTION_BYTES}; store large values as objects"
        )));
    }
    let mut versions: Vec<u64> = writes.iter().map(|w| first_version(t, w)).collect();
    let mut attempt = 0;
    loop {
        let now = t.inner.env.now();
        let token = format!("{}{:016x}", t.inner.env.id("t"), t.inner.env.random_u64());
        let items = writes.iter().zip(&versions).map(|(w, v)| transact_item(physical, w, *v, now)).collect::<Result<Vec<_>>>()?;
        let asked = t.inner.dynamo.transact_write_items().client_request_token(token).set_transact_items(Some(items));
        for write in writes {
            t.charge_write("TransactWriteItems", written(write), 2);
        }
        let e = match asked.send().await {
            Ok(_) => return Ok(versions),
            Err(e) => e,
        };
        let passing = match e.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                let reasons = canceled.cancellation_reasons().to_vec();
                outbid(t, table, physical, writes, &reasons, &mut versions, now)?;
                Error::unavailable(format!(
                    "transaction on table `{table}`: other transactions on the same items come first again and again"
                ))
                .with_source(e)
            }
            Some(inner) if inner.code() == Some("TransactionInProgressException") => error(format!("transaction on table `{table}`"), e),
            _ => return Err(named(table, error(format!("transaction on table `{table}`"), e))),
        };
        attempt += 1;
        if !t.inner.pause(attempt).await {
            return Err(passing);
        }
    }
}

/// Looks at why a transaction was cancelled: an error when trying again would not help; otherwise with versions raised above
/// those that stood in the way.
fn outbid(
    t: &DynamoTable,
    table: &str,
    physical: &str,
    writes: &[Write],
    reasons: &[CancellationReason],
    versions: &mut [u64],
    now: Timestamp,
) -> Result<()> {
    for ((write, reason), version) in writes.iter().zip(reasons).zip(versions) {
        match reason.code() {
            Some("ConditionalCheckFailed") => {
                let stored = reason.item.clone().filter(|s| !s.is_empty()).map(|s| item_in(physical, s)).transpose()?;
                if !matches!(write.change, Change::Put { .. }) || !holds(write.condition, stored.as_ref(), now) {
                    return Err(conflict(table, write));
                }
                *version = t.versions().next(stored.map_or(*version, |i| i.version));
            }
            Some("ValidationError") => {
                return Err(Error::invalid(format!(
                    "write to `{}` in table `{table}`: {}",
                    write.key.partition,
                    reason.message().unwrap_or("DynamoDB finds it wrong")
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn transact_item(physical: &str, write: &Write, version: u64, now: Timestamp) -> Result<TransactWriteItem> {
    const OLD: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;
    let puts = matches!(write.change, Change::Put { .. });
    let (text, values) = split(expression(write.condition, puts.then_some(version), now));
    let stored = stored_form(write, version)?;
    let made = |e: aws_sdk_dynamodb::error::BuildError| Error::internal("a transaction's item lacks a field").with_source(e);
    let item = TransactWriteItem::builder();
    Ok(match write.change {
        Change::Put { .. } => {
            let put = Put::builder().table_name(physical).set_item(Some(stored));
            let put = put.set_condition_expression(text).set_expression_attribute_values(values);
            item.put(put.return_values_on_condition_check_failure(OLD).build().map_err(made)?)
        }
        Change::Delete => {
            let delete = Delete::builder().table_name(physical).set_key(Some(stored));
            let delete = delete.set_condition_expression(text).set_expression_attribute_values(values);
            item.delete(delete.return_values_on_condition_check_failure(OLD).build().map_err(made)?)
        }
        Change::Check => {
            let check = ConditionCheck::builder().table_name(physical).set_key(Some(stored));
            let check = check.set_condition_expression(text).set_expression_attribute_values(values);
            item.condition_check(check.return_values_on_condition_check_failure(OLD).build().map_err(made)?)
        }
    }
    .build())
}
