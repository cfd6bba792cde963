//! What `tests/fuzz` reaches of the endpoint beside its requests.

use super::names;
use super::page::{Entry, Page, Position, Query};

/// The path that a bucket and a key stand for; `None` when they stand for none.
pub fn object_path(bucket: &str, key: &str) -> Option<String> {
    names::object_path(bucket, key).ok().map(|path| path.to_string())
}

/// Percent-encodes a key.
pub fn url_encode(text: &str) -> String {
    names::url_encode(text)
}

/// Undoes percent-encoding.
pub fn url_decode(text: &str) -> Option<String> {
    names::url_decode(text)
}

/// A page of a listing: keys and groups, and the token of the next page. `None`: the token was not made here.
pub fn page(
    keys: &[String],
    prefix: &str,
    delimiter: Option<&str>,
    token: Option<&str>,
    max: usize,
) -> Option<(Vec<String>, Option<String>)> {
    let from = token.map_or(Some(Position::Start), |t| Position::from_token(t).ok())?;
    let mut page = Page::new(Query { prefix: prefix.to_owned(), delimiter: delimiter.map(str::to_owned), from, max });
    for key in keys {
        if !page.offer(key, ()) {
            break;
        }
    }
    let next = page.next().map(|(token, _)| token);
    let names = page.entries.into_iter().map(|entry| match entry {
        Entry::Key(name, ()) | Entry::Group(name) => name,
    });
    Some((names.collect(), next))
}
