//! What may be said in a statement, and how its touched rows are checked by the server.

use tidemill_base::{Error, Result};

/// Everything else would end the transaction, change the session that others use next, or wait for data that never comes (`COPY`).
const IN_A_TRANSACTION: &[&str] =
    &["INSERT", "UPDATE", "DELETE", "SELECT", "WITH", "VALUES", "MERGE", "CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "ANALYZE"];
const QUERIES: &[&str] = &["SELECT", "WITH", "VALUES", "EXPLAIN"];

/// Refuses what has no place in a transaction.
pub(super) fn check_writable(sql: &str) -> Result<()> {
    let word = first_word(sql);
    if word.is_empty() {
        return Err(Error::invalid("an empty statement; write SQL, or leave it out"));
    }
    if IN_A_TRANSACTION.iter().any(|w| word.eq_ignore_ascii_case(w)) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{word}` cannot be used in a ledger transaction, which changes data and begins and commits by itself")))
}

/// Refuses what is no query.
pub(super) fn check_query(sql: &str) -> Result<()> {
    let word = first_word(sql);
    if QUERIES.iter().any(|w| word.eq_ignore_ascii_case(w)) {
        return Ok(());
    }
    Err(Error::invalid(format!("a ledger query starts with SELECT, WITH or VALUES, not `{word}`; changes go through a transaction")))
}

/// The first word after blanks and comments.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        let after = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return if end == 0 { rest.chars().next().map_or("", |c| &rest[..c.len_utf8()]) } else { &rest[..end] };
        };
        rest = after;
    }
}

/// The statement with the number of rows that it touches checked against parameter `$params + 1`; `None` where that cannot be told
/// from its text. Whether the text means what it seems to is for the server to say: it refuses what is no statement.
pub(super) fn counted(sql: &str, params: usize) -> Option<String> {
    let word = first_word(sql);
    let changes = ["INSERT", "UPDATE", "DELETE"].iter().any(|w| word.eq_ignore_ascii_case(w));
    let body = sql.trim_end_matches(|c: char| c.is_whitespace() || c == ';');
    let returns = body.as_bytes().windows(9).any(|w| w.eq_ignore_ascii_case(b"RETURNING"));
    // The line breaks end a comment that may stand at the end. A text such as `x) SELECT 1 --` cannot close the bracket unseen, since
    // it would have to be a whole statement up to there and leave RETURNING without one.
    (changes && !returns).then(|| {
        format!("WITH touched AS (\n{body}\nRETURNING 1) SELECT tidemill_expect((SELECT count(*) FROM touched), ${}::bigint)", params + 1)
    })
}

/// How too few or too many parameters are told.
pub(super) fn check_count(wanted: usize, given: usize) -> Result<()> {
    if wanted == given {
        return Ok(());
    }
    Err(Error::invalid(format!("the statement asks for parameters up to ${wanted}, and {given} were given")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_known_by_their_first_word() {
        for good in ["update t set x = 1", " -- why\n/* and how */ INSERT INTO t", "WITH a AS (SELECT 1) DELETE FROM t"] {
            check_writable(good).unwrap();
        }
        for bad in ["", "  -- nothing", "COMMIT", "copy t FROM STDIN", "SET x = 1", "LISTEN x", "DO $$ $$", "\u{1F30A}", "(SELECT 1)"] {
            assert!(check_writable(bad).is_err(), "{bad}");
        }
        assert!(check_query("DELETE FROM t").is_err() && check_query("\nselect 1").is_ok());
    }

    #[test]
    fn what_changes_rows_can_be_counted() {
        let wrapped = counted("UPDATE t SET n = $1 -- raise\n;", 1).unwrap();
        assert!(wrapped.contains("SET n = $1 -- raise\nRETURNING 1)") && wrapped.ends_with("$2::bigint)"), "{wrapped}");
        for not in ["SELECT 1", "UPDATE t SET n = 1 returning n", "CREATE TABLE t (x BIGINT)", "WITH a AS (SELECT 1) DELETE FROM t"] {
            assert_eq!(counted(not, 0), None, "{not}");
        }
    }
}
