//! Listings, in ascending order of the path's bytes.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

use super::PostgresObjects;
use super::error::{foreign, foreign_pg};
use super::record::meta;
use crate::link::Block;

/// Objects listed by one statement.
const PAGE: usize = 1000;

const LIST: &str = "SELECT path, size, etag, modified FROM tidemill_objects WHERE path > $1 ORDER BY path LIMIT $2";
const LIST_UNTIL: &str = "SELECT path, size, etag, modified FROM tidemill_objects WHERE path > $1 AND path < $3 ORDER BY path LIMIT $2";

/// What to list: paths after one and before another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    after: String,
    until: Option<String>,
}

/// Upstream's prefixes are whole segments.
fn span(prefix: Option<&Path>, after: Option<&Path>) -> Span {
    let prefix = prefix.map(Path::as_ref).filter(|p| !p.is_empty());
    let begin = prefix.map_or_else(String::new, |p| format!("{p}/"));
    let after = after.map(|a| a.as_ref().to_owned()).unwrap_or_default();
    Span { after: begin.max(after), until: prefix.map(behind) }
}

/// The first text behind everything in the folder: `0` is the character after `/`.
fn behind(folder: &str) -> String {
    format!("{folder}0")
}

impl PostgresObjects {
    async fn list_page(&self, span: &Span) -> object_store::Result<Vec<ObjectMeta>> {
        let (link, limit) = (&self.shared.link, PAGE as i64);
        let rows = match &span.until {
            None => link.read(Block::Objects, LIST, &[&span.after, &limit]).await,
            Some(until) => link.read(Block::Objects, LIST_UNTIL, &[&span.after, &limit, until]).await,
        };
        rows.map_err(foreign)?.iter().map(|row| meta(row, 0).map_err(foreign_pg)).collect()
    }

    pub(super) fn list_after(&self, prefix: Option<&Path>, after: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let this = self.clone();
        let pages = stream::try_unfold(Some(span(prefix, after)), move |span| {
            let this = this.clone();
            async move {
                let Some(span) = span else { return Ok::<_, object_store::Error>(None) };
                let page = this.list_page(&span).await?;
                let next = if page.len() < PAGE { None } else { page.last().map(|m| Span { after: m.location.to_string(), ..span }) };
                Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    /// One folder. Where a page ends inside a folder below it, the next begins behind that folder.
    pub(super) async fn list_folder(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let mut out = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        let skip = prefix.map(Path::as_ref).filter(|p| !p.is_empty()).map_or(0, |p| p.len() + 1);
        let mut next = Some(span(prefix, None));
        while let Some(at) = next.take() {
            let page = self.list_page(&at).await?;
            let full = page.len() == PAGE;
            let mut last = None;
            for meta in page {
                let path = meta.location.as_ref();
                match path.get(skip..).and_then(|rest| rest.find('/')) {
                    Some(slash) => {
                        let folder = &path[..skip + slash];
                        // No character is behind this one. Should the folder hold a name that begins with it, it goes on there.
                        last = Some(format!("{folder}/\u{10FFFF}").max(path.to_owned()));
                        if out.common_prefixes.last().is_none_or(|seen| seen.as_ref() != folder) {
                            out.common_prefixes.push(Path::parse(folder)?);
                        }
                    }
                    None => {
                        last = Some(path.to_owned());
                        out.objects.push(meta);
                    }
                }
            }
            next = last.filter(|_| full).map(|after| Span { after, ..at });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_a_folder() {
        let path = Path::from("a/b");
        assert_eq!(span(Some(&path), None), Span { after: "a/b/".into(), until: Some("a/b0".into()) });
        assert_eq!(span(None, None), Span { after: String::new(), until: None });
        assert_eq!(span(Some(&path), Some(&Path::from("a/b/c"))).after, "a/b/c");
        assert_eq!(span(Some(&path), Some(&Path::from("a"))).after, "a/b/", "an offset before the folder leaves out nothing");
    }
}
