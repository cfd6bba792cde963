//! The key spaces of the database, one an index.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};

/// Bytes of writes a space holds in memory before it writes them out as a table.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Values of this size and more lie apart from their keys, so that a scan of keys need not read them.
const APART_BYTES: u32 = 4096;

/// Which index a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    /// Counters and marks.
    Meta,
    /// Queues by name.
    Queues,
    /// Messages by queue, number and time of sending.
    Messages,
    /// Leases, delays and receive counts of messages, by queue and number.
    Leases,
    /// Tables by name.
    Tables,
    /// Items by table, partition and sort key.
    Items,
    /// Items that expire, by when.
    Expiries,
    /// Changes by table and sequence.
    Changes,
    /// Objects by path.
    Objects,
    /// Contents of small objects, by blob.
    SmallBlobs,
    /// Multipart uploads under way, and their parts.
    Uploads,
}

const ALL: [(Space, &str); 11] = [
    (Space::Meta, "meta"),
    (Space::Queues, "queues"),
    (Space::Messages, "messages"),
    (Space::Leases, "leases"),
    (Space::Tables, "tables"),
    (Space::Items, "items"),
    (Space::Expiries, "expiries"),
    (Space::Changes, "changes"),
    (Space::Objects, "objects"),
    (Space::SmallBlobs, "small-blobs"),
    (Space::Uploads, "uploads"),
];

impl Space {
    /// Its name in the database and in messages.
    pub(crate) fn name(self) -> &'static str {
        ALL[self as usize].1
    }
}

/// Every space.
pub(super) fn all() -> impl Iterator<Item = Space> {
    ALL.iter().map(|(space, _)| *space)
}

pub(super) struct Spaces(Vec<Keyspace>);

impl Spaces {
    pub(super) fn open(db: &Database) -> fjall::Result<Self> {
        ALL.iter().map(|(space, name)| db.keyspace(name, || options(*space))).collect::<fjall::Result<_>>().map(Self)
    }

    pub(super) fn of(&self, space: Space) -> &Keyspace {
        &self.0[space as usize]
    }
}

fn options(space: Space) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    match space {
        Space::Messages => options.with_kv_separation(Some(KvSeparationOptions::default().separation_threshold(APART_BYTES))),
        _ => options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_stand_in_the_order_of_their_numbers() {
        for (at, (space, _)) in ALL.iter().enumerate() {
            assert_eq!(*space as usize, at);
        }
    }
}
