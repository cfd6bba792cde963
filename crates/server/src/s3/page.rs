//! One page of a listing: keys and the groups (common prefixes) that a delimiter makes of them. Plain code, no store.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::{S3Result, s3_error};

/// The largest page, in entries.
pub(super) const MAX_ENTRIES: usize = 1000;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Position {
    /// At the first key.
    #[default]
    Start,
    /// After this key, which need not exist.
    AfterKey(String),
    /// After every key of this group.
    AfterGroup(String),
}

impl Position {
    /// As a token for the client to give back.
    fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(match self {
            Self::Start => String::new(),
            Self::AfterKey(key) => format!("k{key}"),
            Self::AfterGroup(group) => format!("g{group}"),
        })
    }

    /// From a token; a foreign one is `InvalidArgument`.
    pub(super) fn from_token(token: &str) -> S3Result<Self> {
        let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        match text.split_at_checked(1) {
            Some(("k", key)) => Ok(Self::AfterKey(key.to_owned())),
            Some(("g", group)) => Ok(Self::AfterGroup(group.to_owned())),
            _ => Err(s3_error!(InvalidArgument, "the continuation token was not made by this endpoint")),
        }
    }

    /// From a marker of the first version of listing, which names a key or a group.
    pub(super) fn from_marker(marker: Option<String>, delimiter: Option<&str>) -> Self {
        match marker {
            None => Self::Start,
            Some(marker) if marker.is_empty() => Self::Start,
            Some(marker) if delimiter.is_some_and(|d| marker.ends_with(d)) => Self::AfterGroup(marker),
            Some(marker) => Self::AfterKey(marker),
        }
    }

    fn passed(&self, key: &str) -> bool {
        match self {
            Self::Start => false,
            Self::AfterKey(after) => key <= after.as_str(),
            Self::AfterGroup(group) => key < group.as_str() || key.starts_with(group.as_str()),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) delimiter: Option<String>,
    pub(super) from: Position,
    pub(super) max: usize,
}

/// A key with what the listing shows of it, or a group.
#[derive(Debug, PartialEq)]
pub(super) enum Entry<T> {
    Key(String, T),
    Group(String),
}

/// A page as it fills.
#[derive(Debug)]
pub(super) struct Page<T> {
    query: Query,
    pub(super) entries: Vec<Entry<T>>,
    pub(super) truncated: bool,
}

impl<T> Page<T> {
    pub(super) const fn new(query: Query) -> Self {
        Self { query, entries: Vec::new(), truncated: false }
    }

    /// Takes the next key in ascending order. False: the page needs no more.
    pub(super) fn offer(&mut self, key: &str, value: T) -> bool {
        if !key.starts_with(&self.query.prefix) {
            return key < self.query.prefix.as_str();
        }
        if self.query.from.passed(key) {
            return true;
        }
        let group = self.group_of(key);
        if let (Some(group), Some(Entry::Group(last))) = (group, self.entries.last())
            && group == last
        {
            return true;
        }
        if self.entries.len() >= self.query.max {
            // An empty page is asked for to see whether a bucket is there; it has nothing to go on from.
            self.truncated = self.query.max > 0;
            return false;
        }
        let entry = match group {
            Some(group) => Entry::Group(group.to_owned()),
            None => Entry::Key(key.to_owned(), value),
        };
        self.entries.push(entry);
        true
    }

    fn group_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.query.delimiter.as_deref()?;
        let from = self.query.prefix.len();
        let at = key[from..].find(delimiter)?;
        Some(&key[..from + at + delimiter.len()])
    }

    /// Where the next page begins, when there is one: the token, and the same as a plain marker.
    pub(super) fn next(&self) -> Option<(String, String)> {
        if !self.truncated {
            return None;
        }
        let (position, marker) = match self.entries.last()? {
            Entry::Key(key, _) => (Position::AfterKey(key.clone()), key),
            Entry::Group(group) => (Position::AfterGroup(group.clone()), group),
        };
        Some((position.token(), marker.clone()))
    }
}

/// Checks how large a page is wanted.
pub(super) fn page_size(wanted: Option<i32>) -> S3Result<usize> {
    match wanted.map(usize::try_from) {
        None => Ok(MAX_ENTRIES),
        Some(Ok(n)) => Ok(n.min(MAX_ENTRIES)),
        Some(Err(_)) => Err(s3_error!(InvalidArgument, "the size of a page is not negative")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 8] = ["a", "a-b", "a/1", "a/2", "b/c/1", "b/d", "c", "d"];

    fn names(page: &Page<()>) -> Vec<&str> {
        page.entries
            .iter()
            .map(|e| match e {
                Entry::Key(k, ()) | Entry::Group(k) => k.as_str(),
            })
            .collect()
    }

    fn page(query: Query) -> Page<()> {
        let mut page = Page::new(query);
        for key in KEYS {
            if !page.offer(key, ()) {
                break;
            }
        }
        page
    }

    #[test]
    fn pages_of_every_size_join_to_the_whole_listing() {
        for delimiter in [None, Some("/"), Some("-")] {
            for prefix in ["", "a", "b/", "nothing"] {
                let base = Query { prefix: prefix.into(), delimiter: delimiter.map(str::to_owned), from: Position::Start, max: 1000 };
                let whole = page(base.clone());
                assert!(!whole.truncated);
                for max in 1..=4 {
                    let (mut got, mut from) = (Vec::new(), Position::Start);
                    loop {
                        let p = page(Query { max, from, ..base.clone() });
                        got.extend(names(&p).into_iter().map(str::to_owned));
                        match p.next() {
                            Some((token, marker)) => {
                                from = Position::from_token(&token).unwrap();
                                assert_eq!(Position::from_marker(Some(marker), delimiter), from);
                            }
                            None => break,
                        }
                    }
                    assert_eq!(got, names(&whole), "{delimiter:?} {prefix:?} {max}");
                }
            }
        }
    }

    #[test]
    fn groups_are_made_past_the_prefix_and_start_after_may_fall_into_one() {
        let query = Query { delimiter: Some("/".into()), max: 1000, ..Default::default() };
        assert_eq!(names(&page(query.clone())), ["a", "a-b", "a/", "b/", "c", "d"]);
        assert_eq!(names(&page(Query { prefix: "b/".into(), ..query.clone() })), ["b/c/", "b/d"]);
        assert_eq!(names(&page(Query { from: Position::AfterKey("a/1".into()), ..query.clone() })), ["a/", "b/", "c", "d"]);
        assert_eq!(names(&page(Query { from: Position::AfterKey("a/2".into()), ..query })), ["b/", "c", "d"]);
    }

    #[test]
    fn an_empty_page_is_not_truncated_and_foreign_tokens_are_refused() {
        let none = page(Query { max: 0, ..Default::default() });
        assert!(!none.truncated && none.entries.is_empty() && none.next().is_none());
        for token in ["", "xx", "!!!", "MTIz"] {
            assert!(Position::from_token(token).is_err(), "{token}");
        }
        assert!(page_size(Some(-1)).is_err());
        assert_eq!(page_size(Some(5000)).unwrap(), MAX_ENTRIES);
    }
}
