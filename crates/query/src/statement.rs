//! Which statements run: one at a time, of bounded size, and only those that read.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidemill_base::{ByteSize, Error, Result};

use crate::failure;

/// Brackets, CASEs and subqueries inside each other. The parser's own limit; each level takes its stack.
const MAX_NESTING: usize = 64;

/// Operators and keywords in a statement. A chain `a + b + ...` makes a tree as deep as it is long, and a tree is walked and freed by
/// recursion, so its depth is what the stack of a thread has to bear. Commas are free, since a long IN list is flat, and so are round
/// brackets, which the parser bounds.
const MAX_OPERATORS: usize = 2_000;

/// Parses `sql` and refuses what does not only read.
pub(crate) fn parse(sql: &str, max_bytes: usize) -> Result<Statement> {
    if sql.len() > max_bytes {
        let (have, limit) = (ByteSize(size(sql.len())), ByteSize(size(max_bytes)));
        return Err(Error::exhausted(format!("the statement has {have} where {limit} is the limit; put long lists into a table and join it")));
    }
    bound_depth(sql)?;
    let dialect = PostgreSqlDialect {};
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .with_recursion_limit(MAX_NESTING)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| failure::from_parser(sql, e))?;
    let Some(statement) = statements.pop_front() else {
        return Err(Error::invalid("the statement is empty; try `SHOW TABLES`"));
    };
    if !statements.is_empty() {
        let count = statements.len() + 1;
        return Err(Error::invalid(format!("{count} statements at once; send one statement per call")));
    }
    only_reads(&statement)?;
    Ok(statement)
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Counts what can make the tree deeper, before anything recursive looks at it. What cannot be cut into tokens is left to the
/// parser, which says where and why.
fn bound_depth(sql: &str) -> Result<()> {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else { return Ok(()) };
    let operators = tokens.iter().filter(|token| deepens(token)).count();
    if operators > MAX_OPERATORS {
        return Err(Error::exhausted(format!(
            "the statement has {operators} operators and keywords where {MAX_OPERATORS} is the limit; use IN (...) for long lists of values"
        )));
    }
    Ok(())
}

fn deepens(token: &Token) -> bool {
    use datafusion::sql::sqlparser::keywords::Keyword;
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Comma
        | Token::Whitespace(_)
        | Token::LParen
        | Token::RParen
        | Token::RBracket
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::SemiColon
        | Token::EOF => false,
        _ => true,
    }
}

/// A list of what may run, so that a statement that is new to the parser is refused.
fn only_reads(statement: &Statement) -> Result<()> {
    match statement {
        Statement::Explain(explain) => only_reads(&explain.statement),
        Statement::Statement(sql) => match &**sql {
            Sql::Explain { statement: inner, .. } => only_reads(&Statement::Statement(inner.clone())),
            Sql::Query(_)
            | Sql::ShowTables { .. }
            | Sql::ShowColumns { .. }
            | Sql::ShowFunctions { .. }
            | Sql::ShowVariable { .. }
            | Sql::ShowSchemas { .. }
            | Sql::ShowDatabases { .. }
            | Sql::ExplainTable { .. } => Ok(()),
            other => Err(refused(&other.to_string())),
        },
        other => Err(refused(&other.to_string())),
    }
}

/// The error for a statement that would change something. `text` is the statement; its first words name it.
pub(crate) fn refused(text: &str) -> Error {
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    let second_is_a_keyword = words.get(1).is_some_and(|w| w.chars().all(|c| c.is_ascii_uppercase()));
    let verb = words[..if second_is_a_keyword { 2 } else { 1.min(words.len()) }].join(" ");
    Error::denied(format!("`{verb}` is refused, SQL here only reads; use SELECT, WITH, VALUES, EXPLAIN, SHOW or DESCRIBE"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::ErrorKind;

    fn error(sql: &str) -> Error {
        parse(sql, 1 << 20).unwrap_err()
    }

    #[test]
    fn what_only_reads_is_let_through() {
        for sql in [
            "SELECT 1",
            "select 1;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1), (2)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM jobs",
            "SHOW ALL",
            "DESCRIBE jobs",
        ] {
            parse(sql, 1 << 20).unwrap();
        }
    }

    #[test]
    fn what_writes_or_sets_is_refused_by_name() {
        for (sql, verb) in [
            ("DROP TABLE jobs", "DROP TABLE"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "CREATE EXTERNAL"),
            ("COPY (SELECT 1) TO '/tmp/x.csv'", "COPY"),
            ("INSERT INTO jobs VALUES (1)", "INSERT INTO"),
            ("UPDATE jobs SET a = 1", "UPDATE"),
            ("DELETE FROM jobs", "DELETE FROM"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("RESET datafusion.execution.batch_size", "RESET"),
            ("BEGIN", "BEGIN"),
            ("EXPLAIN INSERT INTO jobs VALUES (1)", "INSERT INTO"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
        ] {
            let e = error(sql);
            assert_eq!(e.kind(), ErrorKind::Denied, "{sql}: {e}");
            assert!(e.message().starts_with(&format!("`{verb}")), "{sql}: {e}");
        }
    }

    #[test]
    fn size_count_and_depth_are_bounded() {
        assert!(error("SELECT 1; SELECT 2").message().starts_with("2 statements at once"));
        assert!(error("  -- nothing\n").message().contains("empty"));
        let long = parse(&format!("SELECT '{}'", "x".repeat(200)), 100).unwrap_err();
        assert_eq!(long.kind(), ErrorKind::Exhausted);
        let chain = error(&format!("SELECT 1{}", " + 1".repeat(100_000)));
        assert!(chain.message().contains("100001 operators and keywords"), "{chain}");
        let list: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
        parse(&format!("SELECT 1 WHERE 1 IN ({})", list.join(",")), 1 << 20).unwrap();
        for (open, close) in [("(", ")"), ("NOT ", ""), ("- ", ""), ("CASE WHEN true THEN ", " END"), ("abs(", ")"), ("[", "]")] {
            let e = error(&format!("SELECT {}1{}", open.repeat(400), close.repeat(400)));
            assert!(matches!(e.kind(), ErrorKind::Exhausted | ErrorKind::Invalid), "{open}: {e}");
        }
    }

    #[test]
    fn a_syntax_error_says_where() {
        let e = error("SELECT a\nFROM jobs WHERE ORDER BY a");
        assert!(e.message().contains("line 2, column"), "{e}");
        assert_eq!(e.kind(), ErrorKind::Invalid);
    }
}
