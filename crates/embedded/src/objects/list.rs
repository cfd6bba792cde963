//! Listings, in ascending order of the path.

use object_store::ObjectMeta;
use object_store::path::Path;
use tidemill_base::{Error, Result};

use super::record::{self, Record};
use crate::store::{Space, View};

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Paths that begin with these characters, be it in the middle of a segment.
    pub prefix: String,
    /// Paths after this one. It may be the `next` of an earlier page.
    pub after: Option<String>,
    /// Everything that continues past a `/` behind the prefix becomes one entry in [`ListPage::prefixes`].
    pub delimited: bool,
    /// At most this many objects and prefixes, at least 1.
    pub max: usize,
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The objects.
    pub objects: Vec<ObjectMeta>,
    /// The common prefixes, each with its `/`.
    pub prefixes: Vec<String>,
    /// What to continue `after`; `None` when that was all.
    pub next: Option<String>,
}

/// One page. A prefix with a million objects below it costs one step, since the scan goes on behind it.
pub(super) fn page(view: &View, request: &ListRequest) -> Result<ListPage> {
    if request.max == 0 {
        return Err(Error::invalid("a listing of 0 objects returns nothing; ask for 1 or more"));
    }
    let end = after_prefix(request.prefix.as_bytes());
    let mut from = first_key(request);
    let mut page = ListPage::default();
    let mut last = String::new();
    'scan: loop {
        for entry in view.range(Space::Objects, &from, &end) {
            let (key, stored) = entry?;
            let text = std::str::from_utf8(&key).map_err(|e| Error::corrupt(format!("object key {key:?} is not text")).with_source(e))?;
            if page.objects.len() + page.prefixes.len() >= request.max {
                page.next = Some(last);
                return Ok(page);
            }
            if let Some(prefix) = common_prefix(text, request) {
                last = prefix.to_owned();
                page.prefixes.push(prefix.to_owned());
                from = after_prefix(prefix.as_bytes());
                continue 'scan;
            }
            text.clone_into(&mut last);
            page.objects.push(meta(text, &stored)?);
        }
        return Ok(page);
    }
}

fn meta(text: &str, stored: &[u8]) -> Result<ObjectMeta> {
    let record: Record = record::decode(stored, || format!("object `{text}`"))?;
    let location = Path::parse(text).map_err(|e| Error::corrupt(format!("object key `{text}` is not a path")).with_source(e))?;
    Ok(record.meta(location))
}

fn common_prefix<'t>(text: &'t str, request: &ListRequest) -> Option<&'t str> {
    let slash = text.get(request.prefix.len()..).filter(|_| request.delimited)?.find('/')?;
    text.get(..=request.prefix.len() + slash)
}

fn first_key(request: &ListRequest) -> Vec<u8> {
    let start = request.prefix.as_bytes().to_vec();
    let Some(after) = &request.after else { return start };
    // After a common prefix comes what does not begin with it; after an object its path and a zero byte.
    let is_prefix = common_prefix(after, request).is_some_and(|p| p == after);
    let next = if is_prefix { after_prefix(after.as_bytes()) } else { [after.as_bytes(), &[0]].concat() };
    start.max(next)
}

/// The first key after all that begin with `prefix`. No path contains the byte 255.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    match prefix.split_last() {
        Some((last, rest)) => [rest, &[last + 1]].concat(),
        None => vec![u8::MAX],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_behind_what_was_seen() {
        let request = |after: &str| ListRequest { prefix: "a/".into(), after: Some(after.into()), delimited: true, max: 1 };
        assert_eq!(first_key(&request("a/b/")), b"a/b0");
        assert_eq!(first_key(&request("a/b")), b"a/b\0");
        assert_eq!(first_key(&request("A")), b"a/");
        assert_eq!(common_prefix("a/b/c", &request("")), Some("a/b/"));
        assert_eq!(common_prefix("a/b", &request("")), None);
    }
}
