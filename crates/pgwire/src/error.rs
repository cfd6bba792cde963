//! Errors as the protocol carries them: a SQLSTATE, a message, and where they help a hint and a position.
//!
//! The codes are those of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use tidemill_base::{Error, ErrorKind};

/// What is said to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlError {
    /// Five characters that programs go by.
    pub(crate) state: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The character in the statement, from 1.
    pub(crate) position: Option<usize>,
}

pub(crate) type SqlResult<T> = Result<T, SqlError>;

pub(crate) const CANCELLED: &str = "57014";
pub(crate) const READ_ONLY: &str = "25006";

impl SqlError {
    pub(crate) fn new(state: &'static str, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), hint: None, position: None }
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The engine's error about `sql`.
    pub(crate) fn of_statement(sql: &str, error: &Error) -> Self {
        let (message, hint) = split_hint(error.message());
        Self { state: state_of(error), hint, position: position(sql, error.message()), message }
    }
}

impl From<Error> for SqlError {
    fn from(error: Error) -> Self {
        let (message, hint) = split_hint(error.message());
        Self { state: state_of(&error), message, hint, position: None }
    }
}

/// Our messages say what to do after a semicolon; the protocol has a field for that.
fn split_hint(message: &str) -> (String, Option<String>) {
    match message.split_once("; ") {
        Some((what, hint)) if !what.is_empty() && !hint.is_empty() => (what.to_owned(), Some(hint.to_owned())),
        _ => (message.to_owned(), None),
    }
}

fn state_of(error: &Error) -> &'static str {
    let message = error.message();
    let says = |word: &str| message.contains(word);
    match error.kind() {
        ErrorKind::Denied if says("SQL here only reads") => READ_ONLY,
        ErrorKind::Denied => "42501",
        ErrorKind::NotFound => "42704",
        ErrorKind::Conflict => "55000",
        ErrorKind::Exhausted if says("memory") => "53200",
        ErrorKind::Exhausted if says("nested") || says("operators") => "54001",
        ErrorKind::Exhausted => "54000",
        ErrorKind::Unavailable if says("took longer") => CANCELLED,
        ErrorKind::Unavailable => "58000",
        ErrorKind::Corrupt => "XX001",
        ErrorKind::Internal => "XX000",
        ErrorKind::Invalid => state_of_invalid(message),
    }
}

/// By the words of the engine's messages; `tests/it/states.rs` holds both to each other.
fn state_of_invalid(message: &str) -> &'static str {
    let lower = message.to_ascii_lowercase();
    let table = [
        ("syntax error", "42601"),
        ("there is no table", "42P01"),
        ("there is no column", "42703"),
        ("is in more than one table", "42702"),
        ("invalid function", "42883"),
        ("candidate functions", "42883"),
        ("signature", "42883"),
        ("there is no parameter", "42P02"),
        ("not supported", "0A000"),
        ("divide by zero", "22012"),
        ("division by zero", "22012"),
        ("cannot cast", "22P02"),
        ("can't cast", "22003"),
        ("error parsing", "22007"),
        ("overflow", "22003"),
        ("group by", "42803"),
    ];
    table.iter().find(|(words, _)| lower.contains(words)).map_or("42000", |(_, state)| state)
}

/// Turns `line 2, column 17` in a message into a character's number.
fn position(sql: &str, message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("line ")?;
    let (line, rest) = rest.split_once(", column ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (line, column): (usize, usize) = (line.parse().ok()?, rest.get(..digits)?.parse().ok()?);
    let before: usize = sql.split('\n').take(line.checked_sub(1)?).map(|l| l.chars().count() + 1).sum();
    let position = before + column;
    (1..=sql.chars().count() + 1).contains(&position).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_counts_characters_of_the_whole_statement() {
        assert_eq!(position("SELECT 'ä',\n  x", "no column (at line 2, column 3, near \"x\")"), Some(15));
        assert_eq!(position("SELECT 1", "took longer"), None);
        assert_eq!(position("SELECT 1", "at line 7, column 3"), None);
        assert_eq!(position("SELECT 1", "at line 0, column 3"), None);
    }

    #[test]
    fn what_to_do_becomes_the_hint() {
        let e = SqlError::of_statement("DROP TABLE x", &Error::denied("`DROP TABLE` is refused, SQL here only reads; use SELECT"));
        assert_eq!(
            (e.state, e.message.as_str(), e.hint.as_deref()),
            (READ_ONLY, "`DROP TABLE` is refused, SQL here only reads", Some("use SELECT"))
        );
    }
}
