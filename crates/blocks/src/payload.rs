//! Large payloads travel by reference: a body over the queue's limit is stored as an object and the message carries its path.

use bytes::Bytes;
use object_store::path::Path;
use tidemill_base::{Env, Error, Result};

use crate::objects::{self, Objects};
use crate::queue::MAX_BODY_BYTES;

const INLINE: u8 = 0;
const BY_REFERENCE: u8 = 1;

/// Wraps `body` so that it fits a message. Bodies that do not fit are written under `system/payloads/` first.
pub async fn wrap(store: &Objects, env: &Env, body: Bytes) -> Result<Bytes> {
    if body.len() < MAX_BODY_BYTES {
        return Ok(tagged(INLINE, &body));
    }
    let path = Path::from(format!("system/payloads/{}", env.id("p")));
    objects::put(store.as_ref(), &path, body).await?;
    Ok(tagged(BY_REFERENCE, path.as_ref().as_bytes()))
}

/// The body that was wrapped.
pub async fn unwrap(store: &Objects, message: &Bytes) -> Result<Bytes> {
    match message.first() {
        Some(&INLINE) => Ok(message.slice(1..)),
        Some(&BY_REFERENCE) => objects::get(store.as_ref(), &reference(message)?).await,
        _ => Err(Error::corrupt("message is neither a body nor a reference to one")),
    }
}

/// Removes the object behind a message that has been dealt with, if there is one.
pub async fn discard(store: &Objects, message: &Bytes) -> Result<()> {
    if message.first() == Some(&BY_REFERENCE) { objects::delete(store.as_ref(), &reference(message)?).await } else { Ok(()) }
}

fn reference(message: &Bytes) -> Result<Path> {
    let text = std::str::from_utf8(&message[1..]).map_err(|e| Error::corrupt("payload reference is not text").with_source(e))?;
    objects::parse_path(text)
}

fn tagged(tag: u8, rest: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(rest.len() + 1);
    out.push(tag);
    out.extend_from_slice(rest);
    out.into()
}
