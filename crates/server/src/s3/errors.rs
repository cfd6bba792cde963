//! The store's errors in S3's words.

use object_store::Error as E;
use s3s::{S3Error, S3ErrorCode, s3_error};

/// Turns the store's error into S3's. What lies underneath may hold paths of the machine, so it goes to the log only.
pub(super) fn store_error(e: E) -> S3Error {
    match e {
        E::NotFound { .. } => s3_error!(NoSuchKey),
        E::AlreadyExists { .. } | E::Precondition { .. } => precondition_failed(),
        E::NotSupported { .. } | E::NotImplemented { .. } => {
            s3_error!(NotImplemented, "the object store behind this endpoint cannot do this")
        }
        E::InvalidPath { .. } => s3_error!(InvalidArgument, "the key cannot be stored"),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            tracing::warn!(error = %e, "the object store refused the server");
            s3_error!(InternalError, "the object store refused the server; its operator has to look")
        }
        other => {
            tracing::warn!(error = %other, "object store failed");
            s3_error!(ServiceUnavailable, "the object store failed; try again, and if it stays so see the server's log")
        }
    }
}

/// A condition of the request does not hold.
pub(super) fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "at least one of the conditions of the request does not hold")
}

/// Something S3 has and this endpoint has not.
pub(super) fn not_supported(what: &str) -> S3Error {
    S3Error::with_message(S3ErrorCode::NotImplemented, format!("{what} is not supported by this endpoint"))
}

/// A code that s3s has no name for.
pub(super) fn custom(code: &'static str, status: hyper::StatusCode, message: &'static str) -> S3Error {
    let mut e = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    e.set_status_code(status);
    e
}
