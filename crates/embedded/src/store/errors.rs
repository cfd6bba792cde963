//! What the engine's errors mean to our callers.

use std::any::Any;
use std::path::Path;

use tidemill_base::{Error, ErrorKind};

use super::Space;

/// Why the store takes no more writes. Kept, since every later caller gets it.
#[derive(Debug)]
pub(super) struct Refusal {
    kind: ErrorKind,
    message: String,
}

impl Refusal {
    pub(super) fn new(path: &Path, e: &fjall::Error) -> Self {
        let kind = kind(e);
        let advice = match kind {
            ErrorKind::Exhausted => "make room on the disk, then restart",
            _ => "check the disk, then restart",
        };
        let message = format!("the store in {} failed to write ({e}) and takes no more writes; {advice}", path.display());
        Self { kind, message }
    }

    pub(super) fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone())
    }
}

/// An error met while opening the database in `path`.
pub(super) fn opening(path: &Path, e: fjall::Error) -> Error {
    let shown = path.display();
    let message = match kind(&e) {
        ErrorKind::Unavailable if matches!(e, fjall::Error::Locked) => {
            format!("{shown} is in use by another process; stop that one, or choose another data folder")
        }
        ErrorKind::Corrupt => format!("the store in {shown} cannot be read back as it was written; restore it from a backup"),
        ErrorKind::Exhausted => format!("the store in {shown} cannot be opened because the disk is full; make room"),
        _ => format!("the store in {shown} cannot be opened"),
    };
    Error::new(kind(&e), message).with_source(e)
}

/// The engine panicked while it read back the database in `path`.
pub(super) fn broken_off(path: &Path, panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let why = said.unwrap_or("without a word").replace('\n', " ");
    Error::corrupt(format!("the store in {} cannot be read back as it was written ({why}); restore it from a backup", path.display()))
}

/// An error met while reading `space` of the database in `path`.
pub(super) fn reading(path: &Path, space: Space, e: fjall::Error) -> Error {
    Error::new(kind(&e), format!("cannot read `{}` of the store in {}", space.name(), path.display())).with_source(e)
}

fn kind(e: &fjall::Error) -> ErrorKind {
    match e {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => io_kind(e),
        fjall::Error::Locked | fjall::Error::Poisoned => ErrorKind::Unavailable,
        fjall::Error::KeyspaceDeleted => ErrorKind::Internal,
        _ => ErrorKind::Corrupt,
    }
}

fn io_kind(e: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as K;
    match e.kind() {
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => ErrorKind::Exhausted,
        K::PermissionDenied | K::ReadOnlyFilesystem => ErrorKind::Denied,
        // A file of the database that is missing or too short is damage, not a wrong name.
        K::NotFound | K::UnexpectedEof | K::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}
