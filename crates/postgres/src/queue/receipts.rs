//! Names of messages and of deliveries, as text and as the server has them.

use std::collections::BTreeSet;

use tidemill_base::Result;
use tidemill_blocks::queue::{MessageId, Receipt, ReceiptOutcome};
use tokio_postgres::Row;

use super::check_receipts;
use crate::error::from_pg;

/// A message and the number of its delivery.
pub(super) type Key = (i64, i64);

pub(super) fn id(id: i64) -> MessageId {
    MessageId(id.to_string())
}

pub(super) fn parse_id(id: &MessageId) -> Option<i64> {
    id.0.parse().ok()
}

pub(super) fn receipt(id: i64, delivery: i64) -> Receipt {
    Receipt(format!("{id}.{delivery}"))
}

pub(super) fn parse_one(receipt: &Receipt) -> Option<Key> {
    let (id, delivery) = receipt.0.split_once('.')?;
    Some((id.parse().ok()?, delivery.parse().ok()?))
}

/// The receipts that are ours at all, each once and in ascending order: so two calls that name the same messages lock them in the
/// same order.
pub(super) fn parse(receipts: &[Receipt]) -> Result<BTreeSet<Key>> {
    check_receipts(receipts)?;
    Ok(receipts.iter().filter_map(parse_one).collect())
}

pub(super) fn columns(keys: &BTreeSet<Key>) -> (Vec<i64>, Vec<i64>) {
    keys.iter().copied().unzip()
}

/// The deliveries that an answer names.
pub(super) fn done(rows: &[Row]) -> Result<BTreeSet<Key>> {
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>().map_err(from_pg)
}

pub(super) const fn outcome(done: bool) -> ReceiptOutcome {
    if done { ReceiptOutcome::Done } else { ReceiptOutcome::Stale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_receipts_are_read() {
        assert_eq!(parse_one(&receipt(12, 3)), Some((12, 3)));
        for foreign in ["", ".", "1", "1-1", "1.", ".1", "1.1.1", "99999999999999999999.1", "\u{1F30A}.1"] {
            assert_eq!(parse_one(&Receipt(foreign.to_owned())), None, "{foreign}");
        }
    }
}
