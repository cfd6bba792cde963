//! The web console: one page and its files, inside the program.
//!
//! The files are built from `console/` by `npm ci && npm run build` and committed, so that building the program needs no Node and
//! `cargo install` ships the console. Which page to show is decided in the browser from the path, so every path of the console's own
//! gets the same page; the list of them is here and not a fallback for everything, so that a call to a route that does not
//! exist is still told so.

use std::borrow::Cow;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::AppState;

/// What `npm run build` made.
#[derive(RustEmbed)]
#[folder = "console-dist"]
struct Files;

/// Paths that the console shows a page for; see `console/src/App.svelte`.
const PAGES: [&str; 9] = ["/", "/jobs", "/jobs/{*rest}", "/submit", "/grid", "/grid/{*rest}", "/workers", "/queues", "/sql"];

/// Names of files under `assets/` change with their content, so what was fetched once stays right.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Everything else is asked for again, and mostly answered with "not modified".
const ASK_AGAIN: &str = "no-cache";

/// The routes; they need no token, since a person has to get to the page that asks for it.
pub fn routes() -> Router<AppState> {
    let pages = PAGES.into_iter().fold(Router::new(), |router, path| router.route(path, get(page)));
    pages.route("/assets/{*name}", get(asset)).route("/favicon.svg", get(icon)).route("/favicon.ico", get(icon))
}

async fn page(headers: HeaderMap) -> Response {
    file("index.html", ASK_AGAIN, &headers)
}

async fn icon(headers: HeaderMap) -> Response {
    file("favicon.svg", ASK_AGAIN, &headers)
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&format!("assets/{name}"), FOR_EVER, &headers)
}

fn file(name: &str, caching: &'static str, asked: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(name) else { return StatusCode::NOT_FOUND.into_response() };
    // Weak, because the bytes on the way may be compressed.
    let tag = format!("W/\"{}\"", hex::encode(&metadata.sha256_hash()[..12]));
    let fixed = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, caching.to_owned())];
    if asked.get(header::IF_NONE_MATCH).is_some_and(|held| names(held, &tag)) {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    let body = match data {
        Cow::Borrowed(bytes) => bytes::Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes::Bytes::from(bytes),
    };
    (fixed, [(header::CONTENT_TYPE, kind(name))], body).into_response()
}

/// Whether an `If-None-Match` names `tag`.
fn names(held: &HeaderValue, tag: &str) -> bool {
    held.to_str().is_ok_and(|list| list.split(',').any(|one| one.trim() == tag || one.trim() == "*"))
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tag: Option<&HeaderValue>) -> HeaderMap {
        tag.map(|t| (header::IF_NONE_MATCH, t.clone())).into_iter().collect()
    }

    #[test]
    fn the_page_and_all_it_names_are_there_with_their_types() {
        let page = Files::get("index.html").unwrap();
        let text = String::from_utf8(page.data.into_owned()).unwrap();
        let named: Vec<_> = text.split('"').filter(|t| t.starts_with('/')).collect();
        assert!(named.iter().any(|n| n.ends_with(".js")) && named.iter().any(|n| n.ends_with(".css")), "{text}");
        for name in named {
            let response = file(name.trim_start_matches('/'), FOR_EVER, &asked(None));
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            assert_ne!(response.headers()[header::CONTENT_TYPE], "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn what_is_held_already_is_not_sent_again() {
        let first = file("index.html", ASK_AGAIN, &asked(None));
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache");
        let tag = &first.headers()[header::ETAG];
        assert_eq!(file("index.html", ASK_AGAIN, &asked(Some(tag))).status(), StatusCode::NOT_MODIFIED);
        let old = HeaderValue::from_static("W/\"of-an-older-build\"");
        assert_eq!(file("index.html", ASK_AGAIN, &asked(Some(&old))).status(), StatusCode::OK);
        assert_eq!(file("assets/gone.js", FOR_EVER, &asked(None)).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_page_asks_nothing_of_other_hosts() {
        for name in Files::iter() {
            let data = Files::get(&name).unwrap().data;
            let text = String::from_utf8_lossy(&data);
            // The one address is the name of a language, which nobody fetches; Svelte's messages name its manual.
            let known = ["http://www.w3.org/", "https://svelte.dev/"];
            let foreign = text.match_indices("://").map(|(at, _)| &text[text.floor_char_boundary(at.saturating_sub(5))..]);
            for address in foreign {
                assert!(known.iter().any(|k| address.trim_start_matches(|c: char| c != 'h').starts_with(k)), "{name}: {:.80}", address);
            }
        }
    }
}
