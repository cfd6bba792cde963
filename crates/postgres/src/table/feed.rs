//! Following the changes of a table.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Cursor, FeedEntry, FeedPage, Key};
use tidemill_runtime::{Stopwatch, sleep};
use tokio_postgres::Row;

use crate::Shared;
use crate::bell::{POLL, Topic};
use crate::error::from_pg;
use crate::link::Block;

/// The first and the longest pause before looking again at changes that a running transaction holds back.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long the end of the feed is waited for.
const END: Duration = Duration::from_secs(5);

/// A place: the writing transaction's number, and the version written.
pub(super) type Place = (i64, i64);

/// Changes in order, each with whether everything before it is known.
const FOLLOW: &str = "
SELECT xid, version, xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint, partition, sort, value FROM tidemill_feed
WHERE tbl = $1 AND (xid, version) > ($2, $3) ORDER BY xid, version LIMIT $4";

/// The newest change, and the lowest transaction that may still be running.
const NEWEST: &str = "
SELECT f.xid, f.version, h.xmin FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin) h
LEFT JOIN LATERAL (SELECT xid, version FROM tidemill_feed WHERE tbl = $1 ORDER BY xid DESC, version DESC LIMIT 1) f ON true";

pub(super) fn parse(cursor: &Cursor) -> Result<Place> {
    if cursor.0.is_empty() {
        return Ok((0, 0));
    }
    let place = cursor.0.split_once('.').and_then(|(xid, version)| Some((xid.parse().ok()?, version.parse().ok()?)));
    place.ok_or_else(|| Error::invalid(format!("`{}` is no cursor of this feed; begin anew with an empty one", cursor.0.escape_debug())))
}

fn cursor((xid, version): Place) -> Cursor {
    Cursor(format!("{xid}.{version}"))
}

/// The place after everything that is written now. A change below a transaction that still runs is waited for, since that one may
/// write behind it; if that takes too long, the place is before both, so that some changes are told again and none is missed.
pub(super) async fn end(shared: &Shared, table: i32) -> Result<Cursor> {
    let (watch, mut pause) = (Stopwatch::start(), HELD_BACK.0);
    loop {
        let rows = shared.link.read(Block::Table, NEWEST, &[&table]).await?;
        let row = rows.first().ok_or_else(|| Error::internal("asking for the end of a feed gave no answer"))?;
        let read = || -> Result<_, tokio_postgres::Error> {
            Ok((row.try_get::<_, Option<i64>>(0)?, row.try_get::<_, Option<i64>>(1)?, row.try_get::<_, i64>(2)?))
        };
        match read().map_err(from_pg)? {
            (Some(xid), Some(version), xmin) if xid < xmin => return Ok(cursor((xid, version))),
            (None, ..) | (_, None, _) => return Ok(cursor((0, 0))),
            (.., xmin) if watch.elapsed() >= END => return Ok(cursor((xmin, 0))),
            _ => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(HELD_BACK.1);
    }
}

/// Changes after `place`, waiting for the first.
pub(super) async fn follow(shared: &Shared, table: i32, place: Place, max: usize, wait: Duration) -> Result<FeedPage> {
    let (watch, mut pause) = (Stopwatch::start(), HELD_BACK.0);
    let waiters = shared.bell.waiters(Topic::Table(table));
    let waiting = waiters.enter();
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    loop {
        let mut woken = pin!(waiting.notified());
        woken.as_mut().enable();
        let rows = shared.link.read(Block::Table, FOLLOW, &[&table, &place.0, &place.1, &limit]).await?;
        let (entries, last) = settled(&rows).map_err(from_pg)?;
        // Changes that are there and are held back are worth a moment, also to a caller that does not wait.
        let patience = if rows.is_empty() { wait } else { wait.max(HELD_BACK.1) };
        let left = patience.saturating_sub(watch.elapsed());
        if !entries.is_empty() || left.is_zero() {
            return Ok(FeedPage { entries, next: cursor(last.unwrap_or(place)) });
        }
        if rows.is_empty() {
            tokio::select! {
                biased;
                () = woken => {}
                () = sleep(left.min(POLL)) => {}
            }
        } else {
            sleep(left.min(pause)).await;
            pause = (pause * 2).min(HELD_BACK.1);
        }
    }
}

/// The changes before which nothing can appear any more, and the place of the last.
fn settled(rows: &[Row]) -> Result<(Vec<FeedEntry>, Option<Place>), tokio_postgres::Error> {
    let (mut entries, mut last) = (Vec::with_capacity(rows.len()), None);
    for row in rows {
        if !row.try_get::<_, bool>(2)? {
            break;
        }
        let version: i64 = row.try_get(1)?;
        last = Some((row.try_get(0)?, version));
        entries.push(FeedEntry {
            key: Key { partition: String::from_utf8_lossy(row.try_get(3)?).into_owned(), sort: Bytes::copy_from_slice(row.try_get(4)?) },
            value: row.try_get::<_, Option<&[u8]>>(5)?.map(Bytes::copy_from_slice),
            version: u64::try_from(version).unwrap_or_default(),
        });
    }
    Ok((entries, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_back_and_others_are_refused() {
        for place in [(0, 0), (1, 2), (i64::MAX, i64::MAX)] {
            assert_eq!(parse(&cursor(place)).unwrap(), place);
        }
        assert_eq!(parse(&Cursor::default()).unwrap(), (0, 0));
        for foreign in ["no such place", "1", "1.", ".", "1.2.3", "x.1"] {
            assert!(parse(&Cursor(foreign.to_owned())).is_err(), "{foreign}");
        }
    }
}
