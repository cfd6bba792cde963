//! What the server's rows say.

use std::time::Duration;

use bytes::Bytes;
use tidemill_base::Result;
use tidemill_blocks::queue::{Delivery, QueueInfo, QueueSettings, QueueStats};
use tokio_postgres::Row;

use super::{receipts, statements as sql};
use crate::error::from_pg;
use crate::time::Time;

/// What one look at the head of a queue brought.
pub(super) struct Taken {
    pub(super) deliveries: Vec<Delivery>,
    /// Messages were buried or dropped, so there may be others behind them.
    pub(super) moved: bool,
    /// The queue that was given dead letters, and how many.
    pub(super) buried: Option<(i32, usize)>,
    /// Until the next message is due, if nothing was.
    pub(super) due_in: Option<Duration>,
}

/// Adds what one row of a receive's answer says.
pub(super) fn add(taken: &mut Taken, row: &Row) -> Result<(), tokio_postgres::Error> {
    match row.try_get::<_, i32>(0)? {
        sql::DELIVERED => {
            let (id, delivery): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            taken.deliveries.push(Delivery {
                id: receipts::id(id),
                receipt: receipts::receipt(id, delivery),
                receives: u32::try_from(row.try_get::<_, i64>(3)?).unwrap_or(u32::MAX),
                sent_at: row.try_get::<_, Time>(4)?.0,
                body: Bytes::copy_from_slice(row.try_get(5)?),
            });
        }
        sql::BURIED => {
            let (count, dead): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            taken.moved = true;
            taken.buried = Some((i32::try_from(dead).unwrap_or_default(), usize::try_from(count).unwrap_or_default()));
        }
        sql::DROPPED => taken.moved = true,
        _ => taken.due_in = Some(Duration::from_micros(u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or_default())),
    }
    Ok(())
}

fn count(row: &Row, at: usize) -> Result<u64> {
    row.try_get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or_default()).map_err(from_pg)
}

pub(super) fn info(row: &Row) -> Result<QueueInfo> {
    let settings = || -> Result<_, tokio_postgres::Error> {
        Ok(QueueSettings {
            max_receives: row.try_get::<_, Option<i64>>(1)?.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            dead_letter: row.try_get(2)?,
            retention: Duration::from_micros(u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or_default()),
            recoverable: false,
        })
    };
    let (name, settings) = (row.try_get(0).map_err(from_pg)?, settings().map_err(from_pg)?);
    Ok(QueueInfo { name, settings, stats: stats(row, 4)? })
}

pub(super) fn stats(row: &Row, at: usize) -> Result<QueueStats> {
    let oldest: Option<i64> = row.try_get(at + 3).map_err(from_pg)?;
    Ok(QueueStats {
        ready: count(row, at)?,
        delayed: count(row, at + 1)?,
        in_flight: count(row, at + 2)?,
        oldest_age: oldest.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or_default())),
    })
}
