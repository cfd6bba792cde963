//! Statements that are about the session and not about data. They never reach the engine.

use crate::error::{READ_ONLY, SqlError, SqlResult};
use crate::lex::{Kind, Token, tokens};

use super::copy::CopyOptions;

/// How far a FETCH goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Rows(u64),
    All,
}

/// A statement about the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Utility {
    Begin,
    Commit,
    Rollback,
    /// Back to a savepoint: the transaction goes on.
    RollbackTo,
    /// Taken note of, with this word: SAVEPOINT, RELEASE, LISTEN ...
    Noted(&'static str),
    Set {
        name: String,
        /// `None`: back to what it was at first.
        value: Option<String>,
    },
    ResetAll,
    Show(String),
    ShowAll,
    Discard(&'static str),
    /// `None`: all of them.
    Deallocate(Option<String>),
    Declare {
        name: String,
        hold: bool,
        sql: String,
    },
    Fetch {
        name: String,
        count: Count,
        /// MOVE: goes past the rows and does not send them.
        skip: bool,
    },
    CloseCursor(Option<String>),
    Copy {
        sql: String,
        options: CopyOptions,
    },
}

/// The words that such statements begin with.
const VERBS: &[&str] = &[
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "set",
    "reset",
    "show",
    "discard",
    "deallocate",
    "declare",
    "fetch",
    "move",
    "close",
    "copy",
    "listen",
    "unlisten",
    "notify",
];

/// What `sql` says if it is a statement about the session; `None` when it is for the engine.
pub(crate) fn parse(sql: &str) -> SqlResult<Option<Utility>> {
    let Some(verb) = tokens(sql).next().filter(|t| t.kind == Kind::Word).map(|t| t.meaning()) else { return Ok(None) };
    if !VERBS.contains(&verb.as_str()) {
        return Ok(None);
    }
    let all: Vec<Token<'_>> = tokens(sql).filter(|t| t.kind != Kind::Symbol(';')).collect();
    let mut rest = Rest { sql, tokens: &all[1..] };
    Ok(Some(match verb.as_str() {
        "begin" | "start" => Utility::Begin,
        "commit" | "end" => Utility::Commit,
        "rollback" | "abort" => {
            rest.skip(&["work", "transaction"]);
            if rest.take("to") { Utility::RollbackTo } else { Utility::Rollback }
        }
        "savepoint" => Utility::Noted("SAVEPOINT"),
        "release" => Utility::Noted("RELEASE"),
        "listen" => Utility::Noted("LISTEN"),
        "unlisten" => Utility::Noted("UNLISTEN"),
        "notify" => return Err(SqlError::new("0A000", "NOTIFY has nobody to reach here")),
        "set" => set(&mut rest)?,
        "reset" if rest.take("all") => Utility::ResetAll,
        "reset" => Utility::Set { name: rest.setting()?, value: None },
        "show" => return show(&mut rest),
        "discard" => Utility::Discard(if rest.take("all") { "DISCARD ALL" } else { "DISCARD" }),
        "deallocate" => {
            rest.skip(&["prepare"]);
            Utility::Deallocate(if rest.take("all") { None } else { Some(rest.name()?) })
        }
        "declare" => declare(&mut rest)?,
        "fetch" => fetch(&mut rest, false)?,
        "move" => fetch(&mut rest, true)?,
        "close" => Utility::CloseCursor(if rest.take("all") { None } else { Some(rest.name()?) }),
        _ => copy(&mut rest)?,
    }))
}

/// What is left of a statement.
struct Rest<'a> {
    sql: &'a str,
    tokens: &'a [Token<'a>],
}

impl<'a> Rest<'a> {
    fn first(&self) -> Option<&'a Token<'a>> {
        self.tokens.first()
    }

    fn next(&mut self) -> Option<&'a Token<'a>> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    /// Takes the word if it comes next.
    fn take(&mut self, word: &str) -> bool {
        let found = self.first().is_some_and(|t| t.is(word));
        if found {
            self.next();
        }
        found
    }

    fn take_symbol(&mut self, symbol: char) -> bool {
        let found = self.first().is_some_and(|t| t.kind == Kind::Symbol(symbol));
        if found {
            self.next();
        }
        found
    }

    fn skip(&mut self, words: &[&str]) {
        while words.iter().any(|word| self.take(word)) {}
    }

    fn wrong(&self, what: &str) -> SqlError {
        let near = self.first().map_or("the end", |t| t.raw);
        SqlError::new("42601", format!("syntax error at \"{near}\": {what}"))
    }

    fn name(&mut self) -> SqlResult<String> {
        match self.first() {
            Some(token) if matches!(token.kind, Kind::Word | Kind::Name) => {
                self.next();
                Ok(token.meaning())
            }
            _ => Err(self.wrong("a name belongs here")),
        }
    }

    /// The name of a setting, which may have dots: `tidemill.x`.
    fn setting(&mut self) -> SqlResult<String> {
        let mut name = self.name()?;
        while self.take_symbol('.') {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name.to_ascii_lowercase())
    }

    /// The meaning of everything that is left; signs and points stick to their numbers.
    fn value(&mut self) -> String {
        let mut out = String::new();
        let mut end = None;
        while let Some(token) = self.next() {
            if end.is_some_and(|end| end < token.start) && !out.is_empty() && token.kind != Kind::Symbol(',') {
                out.push(' ');
            }
            out.push_str(&token.meaning());
            end = Some(token.end());
        }
        out
    }

    /// The text of the statement from the next token on.
    fn text(&self) -> &'a str {
        self.first().map_or("", |t| &self.sql[t.start..])
    }
}

fn set(rest: &mut Rest<'_>) -> SqlResult<Utility> {
    let session = rest.take("session");
    if session && rest.take("characteristics") {
        return Ok(Utility::Noted("SET"));
    }
    if !session {
        rest.take("local");
    }
    if rest.take("transaction") || rest.take("constraints") || rest.take("role") || rest.take("authorization") {
        return Ok(Utility::Noted("SET"));
    }
    let name = if rest.take("time") {
        rest.take("zone");
        "timezone".to_owned()
    } else if rest.take("names") {
        "client_encoding".to_owned()
    } else {
        let name = rest.setting()?;
        if !rest.take("to") && !rest.take_symbol('=') {
            return Err(rest.wrong("= or TO belongs here"));
        }
        name
    };
    let reset = rest.first().is_some_and(|t| t.is("default"));
    let value = rest.value();
    Ok(Utility::Set { name, value: (!reset).then_some(value) })
}

/// Settings are ours. `SHOW TABLES` and the like are the engine's, which says so by their names.
fn show(rest: &mut Rest<'_>) -> SqlResult<Option<Utility>> {
    let engine = ["tables", "columns", "functions", "schemas", "databases", "create", "catalogs"];
    if engine.iter().any(|word| rest.first().is_some_and(|t| t.is(word))) {
        return Ok(None);
    }
    if rest.take("all") {
        return Ok(Some(Utility::ShowAll));
    }
    let name = if rest.take("time") {
        "timezone".to_owned()
    } else if rest.take("session") {
        "session_authorization".to_owned()
    } else if rest.take("transaction") {
        "transaction_isolation".to_owned()
    } else {
        rest.setting()?
    };
    Ok(Some(Utility::Show(name)))
}

fn declare(rest: &mut Rest<'_>) -> SqlResult<Utility> {
    let name = rest.name()?;
    let mut hold = false;
    loop {
        let Some(word) = rest.next() else { return Err(rest.wrong("CURSOR FOR and a query belong here")) };
        if word.is("hold") {
            hold = !hold;
        } else if word.is("without") && rest.take("hold") {
            hold = false;
        } else if word.is("binary") {
            return Err(SqlError::new("0A000", "binary cursors are not offered").with_hint("ask for binary values in Bind"));
        } else if word.is("for") {
            return Ok(Utility::Declare { name, hold, sql: rest.text().to_owned() });
        }
    }
}

fn fetch(rest: &mut Rest<'_>, skip: bool) -> SqlResult<Utility> {
    for backwards in ["prior", "backward", "absolute", "relative", "last", "first"] {
        if rest.first().is_some_and(|t| t.is(backwards)) {
            return Err(SqlError::new("0A000", "a cursor goes forward only").with_hint("use FETCH n or FETCH ALL"));
        }
    }
    let forward = rest.take("forward");
    let mut count = Count::Rows(1);
    if rest.take("all") {
        count = Count::All;
    } else if forward || !rest.take("next") {
        let number = rest.first().filter(|_| rest.tokens.len() > 1).and_then(|t| t.raw.parse().ok());
        if let Some(n) = number {
            rest.next();
            count = Count::Rows(n);
        }
    }
    rest.skip(&["from", "in"]);
    Ok(Utility::Fetch { name: rest.name()?, count, skip })
}

fn copy(rest: &mut Rest<'_>) -> SqlResult<Utility> {
    let sql = if rest.take_symbol('(') {
        let start = rest.first().map_or(0, |t| t.start);
        let mut depth = 1_usize;
        loop {
            let Some(token) = rest.next() else { return Err(rest.wrong("the query in COPY is not closed")) };
            match token.kind {
                Kind::Symbol('(') => depth += 1,
                Kind::Symbol(')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break rest.sql[start..token.start].trim().to_owned();
            }
        }
    } else {
        table(rest)?
    };
    if rest.take("from") {
        return Err(SqlError::new(READ_ONLY, "COPY FROM is refused, SQL here only reads").with_hint("use COPY (query) TO STDOUT"));
    }
    if !rest.take("to") || !rest.take("stdout") {
        return Err(
            SqlError::new("0A000", "COPY goes to STDOUT and nowhere else").with_hint("use COPY (query) TO STDOUT, or \\copy in psql")
        );
    }
    Ok(Utility::Copy { sql, options: options(rest)? })
}

/// `schema.table (a, b)` as a query.
fn table(rest: &mut Rest<'_>) -> SqlResult<String> {
    let start = rest.first().map_or(0, |t| t.start);
    rest.name()?;
    while rest.take_symbol('.') {
        rest.name()?;
    }
    let end = rest.first().map_or(rest.sql.len(), |t| t.start);
    let table = rest.sql[start..end].trim();
    let mut columns = String::from("*");
    if rest.take_symbol('(') {
        let from = rest.first().map_or(0, |t| t.start);
        loop {
            match rest.next() {
                Some(token) if token.kind == Kind::Symbol(')') => {
                    columns = rest.sql[from..token.start].to_owned();
                    break;
                }
                Some(token) if matches!(token.kind, Kind::Word | Kind::Name | Kind::Symbol(',')) => {}
                _ => return Err(rest.wrong("names of columns belong here")),
            }
        }
    }
    Ok(format!("SELECT {columns} FROM {table}"))
}

/// Both the list in brackets, and the words of old.
fn options(rest: &mut Rest<'_>) -> SqlResult<CopyOptions> {
    rest.take("with");
    let listed = rest.take_symbol('(');
    let mut out = CopyOptions::default();
    while let Some(token) = rest.next() {
        let word = token.meaning();
        match (token.kind, word.as_str()) {
            (Kind::Symbol(',' | ')'), _) => {}
            (Kind::Word, "format") => out.set_format(&rest.name()?)?,
            (Kind::Word, "csv" | "binary" | "text") if !listed => out.set_format(&word)?,
            (Kind::Word, "header") => out.header = !(rest.take("false") || rest.take("off")) || rest.take("true"),
            (Kind::Word, "delimiter" | "null" | "quote" | "escape" | "encoding") => {
                rest.take("as");
                let value = rest.next().map(Token::meaning).unwrap_or_default();
                out.set(&word, &value)?;
            }
            (Kind::Word, "true" | "on") => {}
            _ => return Err(SqlError::new("0A000", format!("COPY has no option \"{word}\" here"))),
        }
    }
    out.settle();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::copy::CopyFormat;

    fn found(sql: &str) -> Utility {
        parse(sql).unwrap().unwrap_or_else(|| panic!("{sql} is for the engine"))
    }

    #[test]
    fn what_tools_send_is_understood() {
        let set = |name: &str, value: &str| Utility::Set { name: name.to_owned(), value: Some(value.to_owned()) };
        for (sql, expected) in [
            ("BEGIN ISOLATION LEVEL READ COMMITTED", Utility::Begin),
            ("start transaction read only;", Utility::Begin),
            ("END", Utility::Commit),
            ("ROLLBACK TO SAVEPOINT a", Utility::RollbackTo),
            ("rollback work", Utility::Rollback),
            ("SET extra_float_digits = 3", set("extra_float_digits", "3")),
            ("SET application_name TO 'psql; x'", set("application_name", "psql; x")),
            ("SET LOCAL statement_timeout = '2s'", set("statement_timeout", "2s")),
            ("SET search_path TO batch, \"Public\"", set("search_path", "batch, Public")),
            ("SET x.y = -1.5", set("x.y", "-1.5")),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            ("SET NAMES 'UTF8'", set("client_encoding", "UTF8")),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED", Utility::Noted("SET")),
            ("RESET statement_timeout", Utility::Set { name: "statement_timeout".to_owned(), value: None }),
            ("SHOW TRANSACTION ISOLATION LEVEL", Utility::Show("transaction_isolation".to_owned())),
            ("show TimeZone", Utility::Show("timezone".to_owned())),
            ("DISCARD ALL", Utility::Discard("DISCARD ALL")),
            ("DEALLOCATE \"S 1\"", Utility::Deallocate(Some("S 1".to_owned()))),
            ("FETCH FORWARD 10 FROM \"c\"", Utility::Fetch { name: "c".to_owned(), count: Count::Rows(10), skip: false }),
            ("FETCH ALL IN c", Utility::Fetch { name: "c".to_owned(), count: Count::All, skip: false }),
            ("FETCH c", Utility::Fetch { name: "c".to_owned(), count: Count::Rows(1), skip: false }),
            ("MOVE 5 c", Utility::Fetch { name: "c".to_owned(), count: Count::Rows(5), skip: true }),
            ("CLOSE ALL", Utility::CloseCursor(None)),
        ] {
            assert_eq!(found(sql), expected, "{sql}");
        }
        let declared = Utility::Declare { name: "c".to_owned(), hold: false, sql: "SELECT 1 WHERE 'for' = 'x'".to_owned() };
        assert_eq!(found("DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1 WHERE 'for' = 'x'"), declared);
        for sql in ["SELECT 1", "SHOW TABLES", "DROP TABLE set", "\"set\" x", "WITH a AS (SELECT 1) SELECT 1", ""] {
            assert_eq!(parse(sql).unwrap(), None, "{sql}");
        }
    }

    #[test]
    fn copy_is_a_query_and_its_options() {
        let Utility::Copy { sql, options } = found("COPY (SELECT ')' || (1)) TO STDOUT (FORMAT csv, HEADER true, DELIMITER ';')") else {
            panic!()
        };
        assert_eq!(sql, "SELECT ')' || (1)");
        assert_eq!((options.format, options.header, options.delimiter), (CopyFormat::Csv, true, b';'));
        let Utility::Copy { sql, options } = found("copy batch.\"jobs\" (id, name) to stdout with csv") else { panic!() };
        assert_eq!((sql.as_str(), options.format), ("SELECT id, name FROM batch.\"jobs\"", CopyFormat::Csv));
        let Utility::Copy { options, .. } = found("COPY jobs TO STDOUT (FORMAT binary)") else { panic!() };
        assert_eq!(options.format, CopyFormat::Binary);
        assert_eq!(parse("COPY jobs FROM STDIN").unwrap_err().state, READ_ONLY);
        for wrong in [
            "COPY jobs TO '/etc/passwd'",
            "COPY jobs TO PROGRAM 'sh'",
            "COPY jobs TO STDOUT (FORMAT xml)",
            "COPY (SELECT 1 TO STDOUT",
            "COPY",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_says_where() {
        assert_eq!(parse("SET x 5").unwrap_err().message, "syntax error at \"5\": = or TO belongs here");
        assert!(parse("FETCH PRIOR FROM c").unwrap_err().message.contains("forward only"));
    }
}
