//! The change feed, from DynamoDB Streams.
//!
//! Why a stream and not a feed of our own: a feed that the driver keeps beside the items has to be written in the same transaction
//! as the item, which makes every write four times as dear and one feed partition the bottleneck of all. A stream costs the
//! writer nothing, has each change of a partition key once and in order, with the value, and keeps it for 24 hours. What it asks in
//! return:
//!
//! - It does not wait for a change, so the driver asks again and again: after 0.1 s, then less and less often, once a second in
//!   the end. A change is told within about a second, at 0.02 USD for 100,000 questions.
//! - DynamoDB wants no more than two readers for each shard, and a server has a follower for each worker. Those that are at the end
//!   share what one reads (`tail`), so that it is two processes that may follow a table. Questions above the limit are throttled,
//!   which makes the feed slower and loses nothing.
//! - A change may come to the stream after the write was answered, so that [`end`] may leave in what was written just before it.
//!
//! A stream has shards; one ends after some hours and its children go on. A cursor has a place in each shard that is being read: the
//! number of the last record, and DynamoDB's iterator, which is good for 15 minutes and spares a request. A shard in which nothing
//! has been read has no number. If the iterator of such a place has gone stale, the shard is read from its beginning and what is
//! older than the place by five minutes is left out: something may then be told twice, and nothing is missed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::table::{Cursor, FeedEntry, FeedPage};
use tidemill_runtime::{Stopwatch, sleep};

use super::shards::{Change, From, Got, Shard, iterator, records};
use super::tail::{Mark, PAUSE};
use super::{DynamoTable, named, schema};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// DynamoDB's are good for 15 minutes.
const ITERATOR_LIFE: Duration = Duration::from_secs(14 * 60);
/// How far clocks may be apart when a place is found again by time.
const OVERLAP: Duration = Duration::from_secs(5 * 60);

/// What a cursor holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Which stream: a table that was removed and made again has another.
    stream: String,
    /// By shard.
    at: BTreeMap<String, At>,
    /// Counts answers, so that no shard is always asked last.
    turn: usize,
}

/// A place in one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    /// Behind this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    /// Nothing from before this time is told. `None`: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// DynamoDB's word for this place, and when it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iterator: Option<(String, Timestamp)>,
    /// The place in the tail of one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
    /// The shard has ended and was read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
}

impl Place {
    fn parse(cursor: &Cursor) -> Result<Option<Self>> {
        if cursor.0.is_empty() {
            return Ok(None);
        }
        let wrong = |e| {
            Error::invalid(format!("`{}` is not a place in this feed; use one that the feed gave", shortened(&cursor.0))).with_source(e)
        };
        serde_json::from_str(&cursor.0).map(Some).map_err(wrong)
    }

    fn cursor(&self) -> Result<Cursor> {
        let text = serde_json::to_string(self).map_err(|e| Error::internal("a cursor cannot be written").with_source(e))?;
        Ok(Cursor(text))
    }

    /// Goes on to the children of shards that have ended. Without any place it begins with the oldest shards.
    fn follow(&mut self, shards: &[Shard]) {
        if self.at.is_empty() {
            let root = |s: &&Shard| !shards.iter().any(|p| s.parent.as_ref() == Some(&p.id));
            self.at = shards.iter().filter(root).map(|s| (s.id.clone(), At::default())).collect();
            return;
        }
        let ended: Vec<String> = self.at.iter().filter(|(_, at)| at.ended).map(|(id, _)| id.clone()).collect();
        for id in ended {
            let children: Vec<&Shard> = shards.iter().filter(|s| s.parent.as_ref() == Some(&id)).collect();
            // Before the children are listed the ended shard is the only way to find them.
            if !children.is_empty() {
                self.at.remove(&id);
            }
            for child in children {
                self.at.entry(child.id.clone()).or_default();
            }
        }
    }

    fn must_follow(&self) -> bool {
        self.at.is_empty() || self.at.values().any(|at| at.ended)
    }

    /// The shards to ask, each time beginning with another.
    fn open(&self) -> Vec<String> {
        let mut open: Vec<String> = self.at.iter().filter(|(_, at)| !at.ended).map(|(id, _)| id.clone()).collect();
        if !open.is_empty() {
            let turn = self.turn % open.len();
            open.rotate_left(turn);
        }
        open
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The stream of a table.
async fn stream(t: &DynamoTable, table: &str) -> Result<String> {
    let physical = t.physical(table)?;
    if let Some(known) = t.streams().get(table) {
        return Ok(known.clone());
    }
    let found = schema::describe(&t.inner, &physical).await?;
    let found = found.ok_or_else(|| named(table, Error::not_found(format!("DynamoDB has no table `{physical}`"))))?;
    let missing = || Error::invalid(format!("DynamoDB table `{physical}` has no stream; enable one with new and old images"));
    let arn = found.latest_stream_arn.ok_or_else(missing)?;
    t.streams().insert(table.to_owned(), arn.clone());
    Ok(arn)
}

/// The place behind the newest record of every open shard.
pub(super) async fn end(t: &DynamoTable, table: &str) -> Result<Cursor> {
    let stream = stream(t, table).await?;
    let mut place = Place { stream: stream.clone(), ..Place::default() };
    for shard in t.tails().shards(&t.inner, &stream).await?.into_iter().filter(|s| !s.closed) {
        let now = t.inner.env.now();
        place.at.insert(shard.id.clone(), end_of(t, &stream, &shard.id, now).await?);
    }
    place.cursor()
}

/// The place behind the newest record of a shard: the end of its tail, so that those who follow from there share it.
async fn end_of(t: &DynamoTable, stream: &str, shard: &str, now: Timestamp) -> Result<At> {
    let called = Stopwatch::start();
    loop {
        let known = match t.tails().get(shard) {
            Some(known) => known,
            None => match iterator(&t.inner, stream, shard, &From::Newest).await? {
                Some(newest) => t.tails().begin(shard, None, newest),
                None => return Ok(At { since: Some(now), ..At::default() }),
            },
        };
        let mut tail = known.lock().await;
        // Of many that call at once all but the first are content with what the second asks.
        if tail.refresh(&t.inner, t.tails(), stream, shard, called.elapsed()).await? {
            let (mark, iterator) = (tail.end(), tail.iterator().cloned());
            let after = tail.number_before(mark.1);
            let since = Some(now).filter(|_| after.is_none());
            return Ok(At { after, since, iterator: iterator.map(|i| (i, now)), mark: Some(mark), ended: false });
        }
    }
}

/// Changes behind `after`, waiting for the first.
pub(super) async fn read(t: &DynamoTable, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
    let stream = stream(t, table).await?;
    let mut place = Place::parse(after)?.unwrap_or_else(|| Place { stream: stream.clone(), ..Place::default() });
    if place.stream != stream {
        return Err(Error::invalid(format!(
            "the cursor is of an earlier table `{table}`, which was removed; begin again with the default one"
        )));
    }
    let waited = Stopwatch::start();
    let mut pause = FIRST_PAUSE;
    loop {
        if place.must_follow() {
            place.follow(&t.tails().shards(&t.inner, &stream).await?);
        }
        let mut entries = Vec::new();
        for shard in place.open() {
            if entries.len() < max {
                let at = place.at.entry(shard.clone()).or_default();
                entries.extend(step(t, &stream, &shard, at, max - entries.len()).await?);
            }
        }
        place.turn = place.turn.wrapping_add(1) % 1000;
        let left = wait.saturating_sub(waited.elapsed());
        if !entries.is_empty() || left.is_zero() {
            return Ok(FeedPage { entries, next: place.cursor()? });
        }
        sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// Asks one shard once, and moves its place behind what it brought.
async fn step(t: &DynamoTable, stream: &str, shard: &str, at: &mut At, max: usize) -> Result<Vec<FeedEntry>> {
    let changes = match shared(t, stream, shard, at, max).await? {
        Some(changes) => changes,
        None => alone(t, stream, shard, at, max).await?,
    };
    let since = at.since.map(|since| (since - OVERLAP).millis() / 1000);
    if let Some(last) = changes.last() {
        at.after = Some(last.number.clone());
        at.since = at.since.filter(|_| since.is_some_and(|since| last.second < since));
    }
    let wanted = changes.into_iter().filter(|c| since.is_none_or(|since| c.second >= since));
    let entries: Vec<FeedEntry> = wanted.filter_map(|c| c.entry).collect();
    for entry in &entries {
        t.versions().saw(entry.version);
    }
    Ok(entries)
}

/// What the shard's tail has behind the place; `None` when the place is not in a tail.
async fn shared(t: &DynamoTable, stream: &str, shard: &str, at: &mut At, max: usize) -> Result<Option<Vec<Change>>> {
    let Some(tail) = t.tails().get(shard) else { return Ok(None) };
    let mut tail = tail.lock().await;
    let Some(place) = tail.find(at.mark, at.after.as_deref()) else { return Ok(None) };
    if place == tail.end().1 && !tail.refresh(&t.inner, t.tails(), stream, shard, PAUSE).await? {
        return Ok(None);
    }
    let Some(place) = tail.find(at.mark, at.after.as_deref()) else { return Ok(None) };
    let (changes, mark, ended) = tail.take(place, max);
    at.mark = Some(mark);
    at.ended = ended;
    // The iterator that the tail has now is for its end, not for a place before.
    at.iterator = tail.iterator().filter(|_| mark == tail.end()).map(|i| (i.clone(), t.inner.env.now()));
    Ok(Some(changes))
}

/// What DynamoDB has behind the place. Whoever finds nothing there may be at the end, where a tail begins.
async fn alone(t: &DynamoTable, stream: &str, shard: &str, at: &mut At, max: usize) -> Result<Vec<Change>> {
    let now = t.inner.env.now();
    let (from, asked) = match at.iterator.take() {
        Some((iterator, given)) if now.since(given) < ITERATOR_LIFE => (iterator, given),
        _ => (locate(t, stream, shard, at).await?, now),
    };
    let (changes, next) = match records(&t.inner, stream, &from, max).await? {
        Got::Records(changes, next) => (changes, next),
        // Asked anew from the last record on; if that fails too, it is no longer kept.
        Got::Expired if asked == now => return Err(forgotten(stream)),
        Got::Expired => return Ok(Vec::new()),
    };
    at.mark = None;
    at.ended = next.is_none();
    if let Some(next) = &next
        && changes.is_empty()
        && t.tails().get(shard).is_none()
    {
        let tail = t.tails().begin(shard, at.after.clone(), next.clone());
        let tail = tail.lock().await;
        // Unless another follower has begun one elsewhere meanwhile.
        at.mark = Some(tail.end()).filter(|mark| mark.1 == 0 && tail.iterator() == Some(next));
    }
    at.iterator = next.map(|next| (next, now));
    Ok(changes)
}

/// An iterator for the place.
async fn locate(t: &DynamoTable, stream: &str, shard: &str, at: &At) -> Result<String> {
    let from = at.after.clone().map_or(From::Oldest, From::After);
    match iterator(&t.inner, stream, shard, &from).await? {
        Some(iterator) => Ok(iterator),
        None => Err(forgotten(stream)),
    }
}

fn forgotten(stream: &str) -> Error {
    Error::invalid(format!(
        "the cursor's place in stream `{stream}` is older than the 24 hours kept; read the table, then follow from `feed_end`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parent: Option<&str>, closed: bool) -> Shard {
        Shard { id: id.to_owned(), parent: parent.map(str::to_owned), closed }
    }

    fn ids(place: &Place) -> Vec<&str> {
        place.at.keys().map(String::as_str).collect()
    }

    #[test]
    fn it_begins_with_the_oldest_shards_and_goes_on_to_their_children() {
        let shards =
            [shard("a", Some("forgotten"), true), shard("b", None, false), shard("c", Some("a"), true), shard("d", Some("c"), false)];
        let mut place = Place::default();
        place.follow(&shards);
        assert_eq!(ids(&place), ["a", "b"]);
        place.at.get_mut("a").unwrap().ended = true;
        assert!(place.must_follow());
        assert_eq!(place.open(), ["b"]);
        place.follow(&shards);
        assert_eq!(ids(&place), ["b", "c"], "children wait for their parent's end, so that order is kept");
        assert!(!place.must_follow());
    }

    #[test]
    fn an_ended_shard_waits_for_its_children_and_a_split_has_two() {
        let mut place = Place::default();
        place.at.insert("a".to_owned(), At { ended: true, ..At::default() });
        place.follow(&[shard("a", None, true), shard("other", None, false)]);
        assert_eq!(ids(&place), ["a"], "others are not begun anew");
        place.follow(&[shard("b", Some("a"), false), shard("c", Some("a"), false)]);
        assert_eq!(ids(&place), ["b", "c"]);
    }

    #[test]
    fn cursors_come_back_and_foreign_ones_are_refused() {
        let mut place = Place { stream: "s".to_owned(), turn: 3, ..Place::default() };
        place.at.insert("a".to_owned(), At { after: Some("17".to_owned()), ..At::default() });
        assert_eq!(Place::parse(&place.cursor().unwrap()).unwrap(), Some(place));
        assert_eq!(Place::parse(&Cursor::default()).unwrap(), None);
        for foreign in ["no such place", "17", "{}", "{\"stream\":\"s\",\"at\":{},\"turn\":0,\"more\":1}"] {
            assert!(Place::parse(&Cursor(foreign.to_owned())).is_err(), "{foreign}");
        }
    }

    #[test]
    fn every_shard_has_its_turn_to_be_first() {
        let mut place = Place::default();
        place.follow(&[shard("a", None, false), shard("b", None, false), shard("c", None, false)]);
        let first = |turn| Place { turn, ..place.clone() }.open()[0].clone();
        assert_eq!([first(0), first(1), first(2), first(3)], ["a", "b", "c", "a"]);
    }
}
