//! The calls of the table block, one for each method of its trait.

use std::time::Duration;

use tidemill_blocks::table as block;

calls! { "table":
    /// `Table::ensure`.
    Ensure("ensure") -> () { table: String };
    /// `Table::get`.
    Get("get") -> Option<block::Item> { table: String, key: block::Key };
    /// `Table::get_many`.
    GetMany("get-many") -> Vec<Option<block::Item>> { table: String, keys: Vec<block::Key> };
    /// `Table::transact`.
    Transact("transact") -> Vec<u64> { table: String, writes: Vec<block::Write> };
    /// `Table::write_many`.
    WriteMany("write-many") -> () { table: String, writes: Vec<block::Write> };
    /// `Table::range`.
    Range("range") -> block::Page { table: String, range: block::Range };
    /// `Table::feed_end`.
    FeedEnd("feed-end") -> block::Cursor { table: String };
    /// `Table::feed`.
    Feed("feed") -> block::FeedPage { table: String, after: block::Cursor, max: usize, wait: Duration } parked for |call| call.wait;
}
