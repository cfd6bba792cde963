//! Range reads.
//!
//! DynamoDB takes one condition on the sort key, and `BETWEEN`, the one with two bounds, includes both. A bound that is excluded is
//! read and left out. Bounds may be longer than any key (the range that follows the longest key begins just after it); DynamoDB
//! takes none over 1,024 bytes, so such a bound is cut there, and what equals the rest lies before it.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Item, Key, MAX_KEY_BYTES, Page, Range};

use super::item::{Attributes, PARTITION, SORT, item_in, key_in, number, second, size, sort_out};
use super::{DynamoTable, named};
use crate::error::error;

/// A bound in stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    key: Vec<u8>,
    included: bool,
}

/// The bound at `sort`, where `before` says that keys before it are in the range (it is the upper one), which excludes it.
fn bound(sort: &[u8], upper: bool) -> Bound {
    let mut key = sort_out(sort);
    if key.len() > MAX_KEY_BYTES {
        key.truncate(MAX_KEY_BYTES);
        // The cut key itself lies before the bound: inside for an upper bound, outside for a lower one.
        return Bound { key, included: upper };
    }
    Bound { key, included: !upper }
}

/// One page: as many requests as it takes to have an item, or to know that there is none.
pub(super) async fn page(t: &DynamoTable, table: &str, range: Range) -> Result<Page> {
    let physical = t.physical(table)?;
    if range.partition.is_empty() || range.until.as_ref().is_some_and(|until| *until <= range.from) {
        // Asks all the same, so that a table that is not there is found out.
        t.read(table, &Key::new("none", "")).await?;
        return Ok(Page::default());
    }
    let mut rest = range;
    loop {
        let (page, next) = ask(t, table, &physical, rest).await?;
        match next {
            Some(next) if page.is_empty() => rest = next,
            next => return Ok(Page { items: page, next }),
        }
    }
}

async fn ask(t: &DynamoTable, table: &str, physical: &str, range: Range) -> Result<(Vec<Item>, Option<Range>)> {
    let now = t.inner.env.now();
    let lower = (!range.from.is_empty()).then(|| bound(&range.from, false));
    let upper = range.until.as_deref().map(|until| bound(until, true));
    let value = |b: &Bound| AttributeValue::B(Blob::new(b.key.clone()));
    let asked = t.inner.dynamo.query().table_name(physical).consistent_read(true).scan_index_forward(!range.reverse);
    let asked = asked.expression_attribute_values(":p", AttributeValue::S(range.partition.clone()));
    let asked = match (&lower, &upper) {
        (None, None) => asked.key_condition_expression("p = :p"),
        (Some(l), None) => asked
            .key_condition_expression(if l.included { "p = :p AND s >= :l" } else { "p = :p AND s > :l" })
            .expression_attribute_values(":l", value(l)),
        (None, Some(u)) => asked
            .key_condition_expression(if u.included { "p = :p AND s <= :u" } else { "p = :p AND s < :u" })
            .expression_attribute_values(":u", value(u)),
        (Some(l), Some(u)) => asked
            .key_condition_expression("p = :p AND s BETWEEN :l AND :u")
            .expression_attribute_values(":l", value(l))
            .expression_attribute_values(":u", value(u)),
    };
    let asked = asked.filter_expression("attribute_not_exists(x) OR x > :now").expression_attribute_values(":now", number(second(now)));
    // Backwards the excluded bound comes first; without one item more the page might hold nothing else, again and again.
    let spare = usize::from(range.reverse && lower.is_some() && upper.as_ref().is_some_and(|u| !u.included));
    let got = asked.limit(i32::try_from(range.limit + spare).unwrap_or(i32::MAX)).send().await;
    let got = got.map_err(|e| named(table, error(format!("read a range of table `{table}`"), e)))?;
    let mut items = Vec::new();
    let mut bytes = 0;
    for stored in got.items.unwrap_or_default() {
        let item = item_in(physical, stored)?;
        bytes += size(&item.key, item.value.len());
        items.push(item);
    }
    t.charge_read("Query", bytes);
    let excluded = |b: &Option<Bound>| b.as_ref().filter(|b| !b.included).map(|b| b.key.clone());
    let excluded = [excluded(&lower), excluded(&upper)];
    items.retain(|i| !excluded.contains(&Some(sort_out(&i.key.sort))));
    let last = match items.get(range.limit - 1) {
        Some(last) if items.len() > range.limit => Some(last.key.sort.clone()),
        _ => got.last_evaluated_key.filter(|last| !last.is_empty()).map(|last| last_sort(table, &last)).transpose()?,
    };
    items.truncate(range.limit);
    Ok((items.into_iter().filter_map(|i| t.seen(i)).collect(), last.and_then(|last| following(range, last))))
}

/// The sort key of the last item that was looked at.
fn last_sort(table: &str, last: &Attributes) -> Result<Bytes> {
    let foreign = || Error::corrupt(format!("table `{table}` has other keys than {PARTITION} and {SORT}; move it away"));
    key_in(last).map(|key| key.sort).ok_or_else(foreign)
}

/// The range behind `last`, if anything can be there.
fn following(range: Range, last: Bytes) -> Option<Range> {
    let next =
        if range.reverse { Range { until: Some(last), ..range } } else { Range { from: Bytes::from([&last[..], &[0]].concat()), ..range } };
    Some(next).filter(|next| next.until.as_ref().is_none_or(|until| *until > next.from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_the_last_that_can_be_there() {
        let range = || Range::all("p", 1).from("b").until("f");
        assert_eq!(following(range(), Bytes::from("d")).unwrap().from, "d\0");
        assert_eq!(following(range(), Bytes::from("f")), None);
        assert_eq!(following(Range { reverse: true, ..range() }, Bytes::from("d")).unwrap().until.unwrap(), "d");
        assert_eq!(following(Range { reverse: true, ..range() }, Bytes::from("b")), None);
    }

    #[test]
    fn bounds_over_the_longest_key_are_cut() {
        assert_eq!(bound(b"a", false), Bound { key: b"a".to_vec(), included: true });
        assert_eq!(bound(b"a", true), Bound { key: b"a".to_vec(), included: false });
        let long = [vec![7; MAX_KEY_BYTES], vec![0]].concat();
        assert_eq!(bound(&long, false), Bound { key: vec![7; MAX_KEY_BYTES], included: false });
        assert_eq!(bound(&long, true), Bound { key: vec![7; MAX_KEY_BYTES], included: true });
    }
}
