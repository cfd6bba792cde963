//! Writing: locks on the partitions, then one statement that checks and changes.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Change, Condition, Key, Write};
use tokio_postgres::Row;

use super::group::write_bytes;
use crate::Shared;
use crate::bell::Topic;
use crate::error::from_pg;
use crate::link::{Block, lock_key};
use crate::time::Time;

/// Partitions share so many locks, since the server's memory for locks is small. Two that share one wait for each other now and then.
const SLOTS: u64 = 1024;
/// The most writes in one statement, and the most bytes but for the last of `write_many`.
pub(super) const BATCH: usize = 500;
pub(super) const BATCH_BYTES: usize = 4 << 20;

/// Several transactions at once, `tx` being the number of each: none of its changes is made unless all of its conditions hold. The
/// answer has a row for each write: its new version, and the first write of its transaction whose condition does not hold.
const APPLY: &str = "
WITH w AS MATERIALIZED (
  SELECT u.*, nextval('tidemill_versions') AS version
  FROM unnest($2::bytea[], $3::bytea[], $4::smallint[], $5::bigint[], $6::smallint[], $7::bytea[], $8::timestamptz[], $9::smallint[])
    WITH ORDINALITY AS u(partition, sort, condition, wanted, change, value, expires, tx, n)),
bad AS MATERIALIZED (
  SELECT w.tx, min(w.n) AS n FROM w LEFT JOIN tidemill_items i ON i.tbl = $1 AND i.partition = w.partition AND i.sort = w.sort
    AND (i.expires IS NULL OR i.expires > statement_timestamp())
  WHERE NOT CASE w.condition WHEN 0 THEN true WHEN 1 THEN i.version IS NULL WHEN 2 THEN i.version IS NOT NULL
                             ELSE COALESCE(i.version = w.wanted, false) END
  GROUP BY w.tx),
put AS (
  INSERT INTO tidemill_items (tbl, partition, sort, version, expires, value)
  SELECT $1, w.partition, w.sort, w.version, w.expires, w.value FROM w
  WHERE w.change = 0 AND w.tx <> ALL (ARRAY(SELECT tx FROM bad))
  ON CONFLICT (tbl, partition, sort) DO UPDATE SET version = excluded.version, expires = excluded.expires, value = excluded.value
  RETURNING partition, sort, version, value),
gone AS (
  DELETE FROM tidemill_items i USING w
  WHERE w.change = 1 AND w.tx <> ALL (ARRAY(SELECT tx FROM bad)) AND i.tbl = $1 AND i.partition = w.partition AND i.sort = w.sort
  RETURNING i.partition, i.sort, w.version),
told AS (
  INSERT INTO tidemill_feed (tbl, xid, version, at, partition, sort, value)
  SELECT $1, pg_current_xact_id()::text::bigint, version, statement_timestamp(), partition, sort, value
  FROM (SELECT partition, sort, version, value FROM put UNION ALL SELECT partition, sort, version, NULL FROM gone) changes)
SELECT w.n, CASE WHEN w.change = 0 THEN w.version ELSE 0 END, bad.n FROM w LEFT JOIN bad ON bad.tx = w.tx ORDER BY w.n";

/// Writes by column.
#[derive(Default)]
struct Columns<'w> {
    partitions: Vec<&'w [u8]>,
    sorts: Vec<&'w [u8]>,
    conditions: Vec<i16>,
    wanted: Vec<i64>,
    changes: Vec<i16>,
    values: Vec<Option<&'w [u8]>>,
    expiries: Vec<Option<Time>>,
    transactions: Vec<i16>,
}

impl<'w> Columns<'w> {
    fn push(&mut self, transaction: i16, write: &'w Write) {
        let (condition, wanted) = match write.condition {
            Condition::Any => (0, 0),
            Condition::Absent => (1, 0),
            Condition::Present => (2, 0),
            // Versions begin at 1, so what is no number of the server's never holds.
            Condition::Version(v) => (3, i64::try_from(v).unwrap_or(0)),
        };
        let (change, value, expires) = match &write.change {
            Change::Put { value, expires_at } => (0, Some(&value[..]), expires_at.map(Time)),
            Change::Delete => (1, None, None),
            Change::Check => (2, None, None),
        };
        self.partitions.push(write.key.partition.as_bytes());
        self.sorts.push(&write.key.sort);
        self.conditions.push(condition);
        self.wanted.push(wanted);
        self.changes.push(change);
        self.values.push(value);
        self.expiries.push(expires);
        self.transactions.push(transaction);
    }
}

/// The locks on the partitions of all writes, in ascending order.
fn locks(schema: &str, table: i32, transactions: &[&[Write]]) -> Vec<i64> {
    let table_lock = lock_key(schema, "table", &table.to_be_bytes()).cast_unsigned() & !(SLOTS - 1);
    let slot = |w: &Write| lock_key("", "partition", w.key.partition.as_bytes()).cast_unsigned() % SLOTS;
    let locks: BTreeSet<i64> = transactions.iter().flat_map(|t| t.iter()).map(|w| (table_lock | slot(w)).cast_signed()).collect();
    locks.into_iter().collect()
}

/// Does all writes of each transaction or none of them, and answers for each. No two of them go to the same key,
/// but to check it.
pub(super) async fn apply(shared: &Shared, table: i32, transactions: &[&[Write]]) -> Result<Vec<Result<Vec<u64>>>> {
    let mut c = Columns::default();
    for (transaction, writes) in (0_i16..).zip(transactions) {
        writes.iter().for_each(|w| c.push(transaction, w));
    }
    let locks = locks(&shared.link.target.schema, table, transactions);
    let rows = shared
        .link
        .locked(
            Block::Table,
            &locks,
            APPLY,
            &[&table, &c.partitions, &c.sorts, &c.conditions, &c.wanted, &c.changes, &c.values, &c.expiries, &c.transactions],
        )
        .await?;
    let (mut rest, mut first) = (&rows[..], 1);
    let mut answers = Vec::with_capacity(transactions.len());
    for writes in transactions {
        let (own, others) = rest.split_at(writes.len().min(rest.len()));
        answers.push(answer(writes, first, own)?);
        (rest, first) = (others, first + i64::try_from(writes.len()).unwrap_or(i64::MAX));
    }
    let changed = |(writes, answer): (&&[Write], &Result<_>)| answer.is_ok() && writes.iter().any(|w| w.change != Change::Check);
    if transactions.iter().zip(&answers).any(changed) {
        shared.bell.ring(Topic::Table(table), 1);
    }
    Ok(answers)
}

/// The answer to one transaction, whose writes are numbered from `first`.
fn answer(writes: &[Write], first: i64, rows: &[Row]) -> Result<Result<Vec<u64>>> {
    let mut versions = Vec::with_capacity(writes.len());
    for row in rows {
        match read(row).map_err(from_pg)? {
            (_, Some(bad)) => return Ok(Err(refused(writes, bad - first + 1))),
            (version, None) => versions.push(u64::try_from(version).unwrap_or_default()),
        }
    }
    Ok(Ok(versions))
}

fn read(row: &Row) -> Result<(i64, Option<i64>), tokio_postgres::Error> {
    Ok((row.try_get(1)?, row.try_get(2)?))
}

fn refused(writes: &[Write], n: i64) -> Error {
    let write = usize::try_from(n - 1).ok().and_then(|at| writes.get(at));
    let (partition, condition) = write.map_or(("?", Condition::Any), |w| (w.key.partition.as_str(), w.condition));
    Error::conflict(format!("write {n}, to partition `{partition}`, wants the item to be {condition:?} and it is not; read it again"))
}

/// Unconditional writes in pieces of a size that one statement can hold. Of several to one key the last stands.
pub(super) fn batches(writes: &[Write]) -> Vec<Vec<Write>> {
    let last: BTreeMap<&Key, &Write> = writes.iter().map(|w| (&w.key, w)).collect();
    let (mut out, mut bytes) = (Vec::<Vec<Write>>::new(), 0);
    for write in last.into_values() {
        match out.last_mut() {
            Some(batch) if batch.len() < BATCH && bytes < BATCH_BYTES => batch.push(write.clone()),
            _ => {
                bytes = 0;
                out.push(vec![write.clone()]);
            }
        }
        bytes += write_bytes(write);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(partition: &str, sort: &str, len: usize) -> Write {
        Write::put(Key::new(partition.to_owned(), sort.to_owned()), vec![0; len], Condition::Any)
    }

    #[test]
    fn batches_keep_to_their_size_and_the_last_write_of_a_key() {
        let many: Vec<Write> = (0..1200).map(|n| put("p", &format!("{:04}", n % 1100), n)).collect();
        let batches_ = batches(&many);
        assert!(batches_.iter().all(|b| b.len() <= BATCH));
        let all: Vec<Write> = batches_.concat();
        assert_eq!(all.len(), 1100);
        assert_eq!(all[0], put("p", "0000", 1100));
        assert_eq!(batches(&[put("p", "a", BATCH_BYTES), put("p", "b", BATCH_BYTES)]).len(), 2);
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn locks_are_few_in_order_and_the_tables_own() {
        let writes: Vec<Write> = (0..5000).map(|n| put(&format!("p{n}"), "", 0)).collect();
        let (a, b) = (locks("s", 1, &[&writes]), locks("s", 2, &[&writes]));
        assert!(a.len() <= 1024 && a.is_sorted_by(|x, y| x < y));
        assert!(a.iter().all(|l| !b.contains(l)));
        assert_eq!(locks("s", 1, &[&writes[..1]]), locks("s", 1, &[&writes[..1]]));
    }
}
