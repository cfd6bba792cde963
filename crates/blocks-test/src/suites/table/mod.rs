//! What a table must do.

mod feed;
mod reads;
mod writes;

use std::sync::Arc;

use tidemill_base::Result;
use tidemill_blocks::table::{Condition, Item, Key, Range, Table, Write};

use crate::Harness;

pub use feed::*;
pub use reads::*;
pub use writes::*;

/// Tests a table driver: `table_suite!(real, make)` or `table_suite!(simulated, make)`, `make` being
/// `async fn(&Harness) -> Arc<dyn Table>`.
#[macro_export]
macro_rules! table_suite {
    ($mode:ident $(, $make:path)?) => {
        $crate::__behaviours! {table, $mode, $($make,)?
            table_names_are_checked unknown_tables_are_not_found tables_are_separate ensure_keeps_what_is_there
            put_get_delete any_condition_always_holds absent_holds_only_without_an_item present_holds_only_with_an_item
            version_holds_only_for_the_newest check_changes_nothing versions_grow_even_after_a_delete
            transactions_are_all_or_nothing transactions_answer_versions_in_order transactions_need_distinct_keys
            transactions_up_to_the_limit values_up_to_the_limit keys_up_to_the_limit odd_keys_are_kept_apart
            one_of_many_writers_wins concurrent_counters_lose_nothing concurrent_transactions_move_whole_amounts
            write_many_takes_any_number write_many_may_be_repeated write_many_is_unconditional
            get_many_keeps_the_order ranges_are_in_byte_order ranges_keep_their_bounds ranges_backwards
            ranges_come_in_pages ranges_stay_in_their_partition empty_ranges_are_empty ranges_need_a_limit
            pages_go_on_while_items_change
            expired_items_are_not_returned expired_items_are_absent_to_conditions a_new_put_sets_a_new_expiry
            the_feed_has_each_change_in_order the_feed_resumes_at_its_cursor the_feed_end_is_after_everything
            the_feed_comes_in_pages the_feed_waits_for_a_change the_feed_wait_ends_without_a_change
            refused_writes_are_not_in_the_feed the_feed_of_a_busy_partition_is_whole foreign_cursors_are_refused
        }
    };
}

/// A table.
pub(super) async fn new_table(t: &Arc<dyn Table>, h: &Harness) -> Result<String> {
    let name = h.name("t");
    t.ensure(&name).await?;
    Ok(name)
}

/// The key of `sort` in the partition that most tests use.
pub(super) fn key(sort: impl Into<Vec<u8>>) -> Key {
    Key::new("p", sort.into())
}

/// Stores unconditionally; answers the version.
pub(super) async fn put(t: &Arc<dyn Table>, table: &str, sort: &str, value: &str) -> Result<u64> {
    let versions = t.transact(table, vec![Write::put(key(sort), value.to_owned(), Condition::Any)]).await?;
    assert_eq!(versions.len(), 1);
    Ok(versions[0])
}

/// The value, as text.
pub(super) async fn value(t: &Arc<dyn Table>, table: &str, sort: &str) -> Result<Option<String>> {
    Ok(t.get(table, &key(sort)).await?.map(|i| text(&i.value)))
}

/// Bytes as text.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The sort keys of items, as text.
pub(super) fn sorts(items: &[Item]) -> Vec<String> {
    items.iter().map(|i| text(&i.key.sort)).collect()
}

/// The sort keys of a range, and the number of pages it came in.
pub(super) async fn read_pages(t: &Arc<dyn Table>, table: &str, range: Range) -> Result<(Vec<String>, usize)> {
    let (limit, mut next, mut out, mut pages) = (range.limit, Some(range), Vec::new(), 0);
    while let Some(range) = next {
        let page = t.range(table, range).await?;
        assert!(page.items.len() <= limit, "a page of {} items, {limit} were asked for", page.items.len());
        out.extend(sorts(&page.items));
        next = page.next;
        pages += 1;
        assert!(pages < 10_000, "the pages do not end");
    }
    Ok((out, pages))
}
