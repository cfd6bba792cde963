//! Our errors as the `object_store` crate's. What has no word there travels inside `Generic`, where
//! `tidemill_blocks::objects::error` finds it again.

use object_store::Error as Foreign;
use tidemill_base::{Error, ErrorKind};

/// The store's name in messages.
pub(super) const STORE: &str = "postgres";

pub(super) fn foreign(e: Error) -> Foreign {
    Foreign::Generic { store: STORE, source: Box::new(e) }
}

pub(super) fn foreign_pg(e: tokio_postgres::Error) -> Foreign {
    foreign(crate::error::from_pg(e))
}

pub(super) fn not_found(path: &str) -> Foreign {
    Foreign::NotFound { path: path.to_owned(), source: Box::new(Error::new(ErrorKind::NotFound, "no such object")) }
}

pub(super) fn exists(path: &str) -> Foreign {
    Foreign::AlreadyExists { path: path.to_owned(), source: Box::new(Error::conflict("the object is there already")) }
}

pub(super) fn mismatch(path: &str, found: &str, wanted: &str) -> Foreign {
    let message = format!("its entity tag is {found} and not {wanted}; read it again");
    Foreign::Precondition { path: path.to_owned(), source: Box::new(Error::conflict(message)) }
}

pub(super) fn unsupported(why: String) -> Foreign {
    Foreign::NotSupported { source: Box::new(Error::invalid(why)) }
}
