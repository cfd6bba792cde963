//! What a failure of PostgreSQL means to the caller.

use tidemill_base::{Error, ErrorKind};
use tokio_postgres::error::SqlState;

/// The state that `tidemill_expect` raises.
pub(crate) const NOT_AS_EXPECTED: &str = "TM001";

/// Our error for the client library's. What the server adds as detail is left out: it repeats stored values.
pub(crate) fn from_pg(e: tokio_postgres::Error) -> Error {
    let Some(db) = e.as_db_error() else {
        let text = e.to_string();
        // The library has no other way to tell a value that does not fit from a connection that broke.
        if ["error serializing", "error deserializing", "error encoding", "expected "].iter().any(|known| text.starts_with(known)) {
            return Error::invalid("a value does not fit the statement").with_source(e);
        }
        if text.starts_with("authentication") {
            return Error::new(ErrorKind::Denied, "PostgreSQL asks for a password or a method that was not given").with_source(e);
        }
        return Error::unavailable("the connection to PostgreSQL failed; whether the call took effect is not known").with_source(e);
    };
    Error::new(kind(db.code()), format!("{} (SQLSTATE {})", db.message(), db.code().code()))
}

/// The same where a connection could not be made, so that nothing can have taken effect.
pub(crate) fn from_connect(e: tokio_postgres::Error, place: &str) -> Error {
    let what = format!("connect to PostgreSQL at {place}");
    if e.as_db_error().is_some() || e.to_string().starts_with("authentication") {
        return from_pg(e).context(what);
    }
    // The library's own words for a setting that is missing, such as the password.
    let kind = if e.to_string().starts_with("invalid configuration") { ErrorKind::Denied } else { ErrorKind::Unavailable };
    Error::new(kind, what).with_source(e)
}

/// What to do about a state: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn kind(state: &SqlState) -> ErrorKind {
    match state.code() {
        "40001" | "40P01" | "55P03" | "55006" | "57014" | "26000" | "25006" | "25P03" | "53300" => ErrorKind::Unavailable,
        "42501" => ErrorKind::Denied,
        "3D000" | "3F000" => ErrorKind::NotFound,
        "XX001" | "XX002" => ErrorKind::Corrupt,
        "54000" | "54001" | "54011" | "54023" | "0A000" | "2D000" | "25001" => ErrorKind::Invalid,
        NOT_AS_EXPECTED => ErrorKind::Conflict,
        code => match &code[..2] {
            "23" => ErrorKind::Conflict,
            "22" | "42" | "21" | "2B" | "34" | "38" | "44" | "P0" => ErrorKind::Invalid,
            "28" => ErrorKind::Denied,
            "53" => ErrorKind::Exhausted,
            "XX" => ErrorKind::Internal,
            // 08 connection, 57 operator's intervention, 58 the server's own system.
            _ => ErrorKind::Unavailable,
        },
    }
}

/// Whether the server undid the transaction because of others, so that the same may be tried again at once.
pub(crate) fn is_contention(e: &tokio_postgres::Error) -> bool {
    matches!(e.code(), Some(s) if *s == SqlState::T_R_SERIALIZATION_FAILURE || *s == SqlState::T_R_DEADLOCK_DETECTED)
}

/// Whether a prepared statement is out of date: a table was altered, or the server has forgotten it.
pub(crate) fn is_stale_plan(e: &tokio_postgres::Error) -> bool {
    let Some(db) = e.as_db_error() else { return false };
    *db.code() == SqlState::INVALID_SQL_STATEMENT_NAME
        || (*db.code() == SqlState::FEATURE_NOT_SUPPORTED && db.message().contains("cached plan"))
}

/// Whether the server cannot tell of what type a parameter is, as in `$1 + $2`.
pub(crate) fn is_ambiguous(e: &tokio_postgres::Error) -> bool {
    matches!(e.code(), Some(s) if [SqlState::AMBIGUOUS_FUNCTION, SqlState::AMBIGUOUS_PARAMETER, SqlState::INDETERMINATE_DATATYPE].contains(s))
}

/// Whether nothing was answered because the connection broke.
pub(crate) fn is_lost(e: &tokio_postgres::Error) -> bool {
    match e.as_db_error() {
        Some(db) => db.code().code().starts_with("57P") || db.code().code().starts_with("08"),
        None => e.is_closed() || e.to_string().starts_with("error communicating"),
    }
}

/// Whether the server is a standby now, which no retry on this connection will change.
pub(crate) fn is_standby(e: &tokio_postgres::Error) -> bool {
    e.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_right_kind() {
        for (code, want) in [
            ("23505", ErrorKind::Conflict),
            ("23503", ErrorKind::Conflict),
            ("42601", ErrorKind::Invalid),
            ("42P01", ErrorKind::Invalid),
            ("22021", ErrorKind::Invalid),
            ("42501", ErrorKind::Denied),
            ("28P01", ErrorKind::Denied),
            ("53100", ErrorKind::Exhausted),
            ("53200", ErrorKind::Exhausted),
            ("53300", ErrorKind::Unavailable),
            ("57P01", ErrorKind::Unavailable),
            ("08006", ErrorKind::Unavailable),
            ("40001", ErrorKind::Unavailable),
            ("3D000", ErrorKind::NotFound),
            ("XX001", ErrorKind::Corrupt),
            ("XX000", ErrorKind::Internal),
            ("TM001", ErrorKind::Conflict),
        ] {
            assert_eq!(kind(&SqlState::from_code(code)), want, "{code}");
        }
    }
}
