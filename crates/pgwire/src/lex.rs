//! Just enough of SQL's words to cut a text into statements, and to know the few statements that are not for the engine.
//!
//! The rules are those of <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>: comments nest, text may stand between dollar signs,
//! and only `E'...'` knows backslashes. What is not closed goes to the end, and the engine's parser says what is wrong with it.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword, a name, or a number.
    Word,
    /// A name between double quotes.
    Name,
    /// Text between single quotes or dollar signs.
    Text,
    /// One character of anything else.
    Symbol(char),
}

/// A token and where it stands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) raw: &'a str,
    pub(crate) start: usize,
}

impl Token<'_> {
    pub(crate) const fn end(&self) -> usize {
        self.start + self.raw.len()
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.raw.eq_ignore_ascii_case(word)
    }

    /// A name as it is meant, or a text without its quotes.
    pub(crate) fn meaning(&self) -> String {
        let inner = |quote: &str| {
            let rest = self.raw.trim_start_matches(['e', 'E', 'n', 'N']);
            let rest = rest.strip_prefix(quote).unwrap_or(rest);
            rest.strip_suffix(quote).unwrap_or(rest).replace(&quote.repeat(2), quote)
        };
        match self.kind {
            Kind::Name => self.raw.trim_matches('"').replace("\"\"", "\""),
            Kind::Text if self.raw.starts_with('$') => {
                let tag = self.raw.split_inclusive('$').take(2).map(str::len).sum();
                self.raw.get(tag..self.raw.len().saturating_sub(tag)).unwrap_or_default().to_owned()
            }
            Kind::Text => inner("'"),
            Kind::Word => self.raw.to_ascii_lowercase(),
            Kind::Symbol(_) => self.raw.to_owned(),
        }
    }
}

/// The tokens of a text, comments and spaces left out.
pub(crate) struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

pub(crate) const fn tokens(sql: &str) -> Tokens<'_> {
    Tokens { sql, at: 0 }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.at += skipped(&self.sql[self.at..]);
        let rest = &self.sql[self.at..];
        let first = rest.chars().next()?;
        let (kind, length) = match first {
            '\'' => (Kind::Text, quoted(rest, '\'', false)),
            '"' => (Kind::Name, quoted(rest, '"', false)),
            'e' | 'E' if rest[1..].starts_with('\'') => (Kind::Text, 1 + quoted(&rest[1..], '\'', true)),
            '$' => dollar(rest).map_or((Kind::Symbol('$'), 1), |length| (Kind::Text, length)),
            c if is_word(c) => (Kind::Word, rest.find(|c: char| !is_word(c) && c != '$').unwrap_or(rest.len())),
            c => (Kind::Symbol(c), c.len_utf8()),
        };
        let token = Token { kind, raw: &rest[..length], start: self.at };
        self.at += length;
        Some(token)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Bytes of spaces and comments at the front.
fn skipped(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        at += rest.len() - rest.trim_start().len();
        let rest = &text[at..];
        if rest.starts_with("--") {
            at += rest.find('\n').map_or(rest.len(), |n| n + 1);
        } else if rest.starts_with("/*") {
            at += comment(rest);
        } else {
            return at;
        }
    }
}

/// The length of a comment in slashes and stars, and those inside it.
fn comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of what begins with a quote; a doubled quote does not end it.
fn quoted(text: &str, quote: char, backslashes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslashes {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// The length of `$tag$...$tag$`; `None` when it is no such thing.
fn dollar(text: &str) -> Option<usize> {
    let name = text[1..].find('$')?;
    let tag = &text[..name + 2];
    let inner = &tag[1..=name];
    if inner.starts_with(|c: char| c.is_ascii_digit()) || !inner.chars().all(is_word) {
        return None;
    }
    Some(text[tag.len()..].find(tag).map_or(text.len(), |n| n + 2 * tag.len()))
}

/// The statements of a text, those without a word left out. What stands before a statement is part of it, so that places in the first one
/// are places in the text.
pub(crate) fn statements(sql: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut words) = (0, 0);
    for token in tokens(sql) {
        if token.kind == Kind::Symbol(';') {
            if words > 0 {
                out.push(sql[start..token.start].trim_end());
            }
            (start, words) = (token.end(), 0);
        } else {
            words += 1;
        }
    }
    if words > 0 {
        out.push(sql[start..].trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statements_end_at_semicolons_that_are_no_part_of_something() {
        for (sql, expected) in [
            ("", vec![]),
            (" ; -- nothing\n;", vec![]),
            ("SELECT 1", vec!["SELECT 1"]),
            ("SELECT ';' ; SELECT \";\"", vec!["SELECT ';'", "SELECT \";\""]),
            ("SELECT 'it''s;'; x", vec!["SELECT 'it''s;'", "x"]),
            ("SELECT E'\\';' ; x", vec!["SELECT E'\\';'", "x"]),
            ("SELECT '\\'; x", vec!["SELECT '\\'", "x"]),
            ("SELECT $a$;$b$;$a$; x", vec!["SELECT $a$;$b$;$a$", "x"]),
            ("SELECT $$;$$ || $1; x", vec!["SELECT $$;$$ || $1", "x"]),
            ("SELECT 1 /* ; /* ; */ ; */ + 2; -- ;\nx", vec!["SELECT 1 /* ; /* ; */ ; */ + 2", "-- ;\nx"]),
            ("SELECT 'open; x", vec!["SELECT 'open; x"]),
        ] {
            let found: Vec<&str> = statements(sql).into_iter().map(str::trim_start).collect();
            assert_eq!(found, expected, "{sql}");
        }
    }

    #[test]
    fn tokens_mean_what_they_say() {
        let found: Vec<String> = tokens("Set \"A\"\"b\" = 'it''s', $t$x$t$ e1 2.5").map(|t| t.meaning()).collect();
        assert_eq!(found, ["set", "A\"b", "=", "it's", ",", "x", "e1", "2", ".", "5"]);
    }

    proptest! {
        #[test]
        fn every_text_is_cut_without_loss(sql in "[ -~\n\\$'\"äß;/*-]{0,80}") {
            let found: Vec<Token<'_>> = tokens(&sql).collect();
            for pair in found.windows(2) {
                prop_assert!(pair[0].end() <= pair[1].start);
            }
            for token in &found {
                prop_assert!(!token.raw.is_empty());
                prop_assert_eq!(&sql[token.start..token.end()], token.raw);
                let _ = token.meaning();
            }
            for statement in statements(&sql) {
                prop_assert!(sql.contains(statement) && tokens(statement).next().is_some());
            }
        }
    }
}
