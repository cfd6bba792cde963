//! Bytes under names: the trait is `object_store::ObjectStore`, whose contract is documented and tested upstream.
//!
//! What Tidemill asks beyond it: a put that was answered survives a crash; `PutMode::Create` is honoured (the first wins, the
//! others get `AlreadyExists`); listings are in ascending order of the path; attributes (content type, user metadata) are kept.
//! The first path segment is the bucket.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tidemill_base::{Error, ErrorKind, Result};

/// Any object store.
pub type Objects = Arc<dyn ObjectStore>;

/// Turns the crate's error into ours, naming the object.
pub fn error(what: &str, path: &Path, e: object_store::Error) -> Error {
    use object_store::Error as E;
    let kind = match &e {
        E::NotFound { .. } => ErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } => ErrorKind::Conflict,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Denied,
        E::InvalidPath { .. } | E::NotSupported { .. } | E::NotImplemented { .. } => ErrorKind::Invalid,
        // Our own drivers send their errors along, since the crate has no word for a full disk or for damage.
        E::Generic { source, .. } => ours(source.as_ref()).map_or(ErrorKind::Unavailable, Error::kind),
        _ => ErrorKind::Unavailable,
    };
    // Callers far away are told the message without its causes, and these are theirs to know.
    let why = match &e {
        E::InvalidPath { source } => format!(": {source}"),
        _ if kind == ErrorKind::Exhausted => ": no space is left in the object store; free some and try again".to_owned(),
        _ => String::new(),
    };
    Error::new(kind, format!("{what} object `{path}`{why}")).with_source(e)
}

/// An error of ours among an error's causes.
fn ours<'a>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<Error>() {
            return Some(found);
        }
        next = e.source();
    }
    None
}

/// Checks a path as people and jobs write it: no empty, `.` or `..` segments and no control characters.
pub fn parse_path(text: &str) -> Result<Path> {
    Path::parse(text).map_err(|e| Error::invalid(format!("`{}` is not an object name", text.escape_debug())).with_source(e))
}

/// The whole object.
pub async fn get(store: &dyn ObjectStore, path: &Path) -> Result<Bytes> {
    let got = store.get(path).await.map_err(|e| error("read", path, e))?;
    got.bytes().await.map_err(|e| error("read", path, e))
}

/// The whole object, or `None` when it is not there.
pub async fn get_opt(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>> {
    match get(store, path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Stores the object, over whatever was there.
pub async fn put(store: &dyn ObjectStore, path: &Path, bytes: impl Into<PutPayload>) -> Result<()> {
    store.put(path, bytes.into()).await.map(drop).map_err(|e| error("write", path, e))
}

/// Stores the object unless it is there; whether it was stored.
pub async fn put_new(store: &dyn ObjectStore, path: &Path, bytes: impl Into<PutPayload>) -> Result<bool> {
    match store.put_opts(path, bytes.into(), PutOptions { mode: PutMode::Create, ..Default::default() }).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(e) => Err(error("create", path, e)),
    }
}

/// Removes the object; removing what is not there is no error.
pub async fn delete(store: &dyn ObjectStore, path: &Path) -> Result<()> {
    match store.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(error("delete", path, e)),
    }
}
