//! What a store of objects must do, as far as Tidemill relies on it.

mod basics;
mod listing;
mod multipart;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tidemill_base::Result;
use tidemill_blocks::objects::{self, Objects};

use crate::Harness;

pub use basics::*;
pub use listing::*;
pub use multipart::*;

/// Tests a store: `objects_suite!(real, make)` or `objects_suite!(simulated, make)`, `make` being
/// `async fn(&Harness) -> Objects`.
#[macro_export]
macro_rules! objects_suite {
    ($mode:ident $(, $make:path)?) => {
        $crate::__behaviours! {objects, $mode, $($make,)?
            put_get_head missing_objects_are_not_found a_put_replaces_whole_objects empty_objects_are_objects
            large_objects_come_back create_keeps_what_is_there one_of_many_creators_wins concurrent_puts_leave_one_whole
            attributes_are_kept ranges_of_an_object copies_and_renames deleting_is_idempotent many_are_deleted_at_once
            odd_names_are_names names_may_be_prefixes_of_names
            lists_are_in_order_of_the_path lists_keep_to_whole_segments lists_go_on_after_an_offset
            lists_with_delimiter_stop_at_folders empty_lists_are_empty long_lists_are_whole
            parts_are_joined_in_the_order_given parts_may_arrive_in_any_order multipart_is_invisible_until_complete
            aborted_uploads_leave_nothing multipart_replaces_whole_objects multipart_of_nothing_is_empty concurrent_uploads_leave_one_whole
        }
    };
}

/// A path below `base`.
pub(super) fn at(base: &str, rest: &str) -> Path {
    Path::from(format!("{base}/{rest}"))
}

/// Stores each of `names` below a base of this test's own, with its name as content.
pub(super) async fn fill(o: &Objects, h: &Harness, names: &[&str]) -> Result<String> {
    let base = h.name("b");
    for name in names {
        objects::put(o.as_ref(), &at(&base, name), Bytes::copy_from_slice(name.as_bytes())).await?;
    }
    Ok(base)
}

/// The listed paths without `base`.
pub(super) fn below(base: &str, listed: &[ObjectMeta]) -> Vec<String> {
    listed
        .iter()
        .map(|m| m.location.as_ref().strip_prefix(base).unwrap_or(m.location.as_ref()).trim_start_matches('/').to_owned())
        .collect()
}

/// Everything under `prefix`, in the order in which the store lists it.
pub(super) async fn list(o: &dyn ObjectStore, prefix: &Path) -> Result<Vec<ObjectMeta>> {
    o.list(Some(prefix)).boxed().try_collect().await.map_err(|e| objects::error("list", prefix, e))
}

/// `len` bytes that differ from place to place and from seed to seed.
pub(super) fn bytes(len: usize, seed: u64) -> Bytes {
    let mut out = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut out);
    out.into()
}
