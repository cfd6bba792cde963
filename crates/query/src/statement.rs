//! Which statements run: one at a time, of bounded size, and only those that read.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidemill_base::{ByteSize, Error, Result};

use crate::failure;

/// Brackets, CASEs and subqueries inside each other. The parser's own limit; each level takes its stack.
const MAX_NESTING: usize = 64;

/// Operators and keywords in a statement. A chain `a + b + ...` makes a tree as deep as it is long, and a tree is walked and freed by
/// recursion, so its depth is what the stack of a thread has to bear. Commas are free, since a long IN list is flat, and so are round
/// brackets, which the parser bounds.
const MAX_OPERATORS: usize = 1_000;

/// Function calls, arrays and subqueries inside each other. DataFusion 55 looks at the arguments of a call several times on each level,
/// so that twenty levels already plan for minutes, without a pause in which they could be stopped.
const MAX_CALLS: usize = 12;

/// Refuses a statement that is too long, or that could be too deep for a thread's stack.
pub(crate) fn bound(sql: &str, max_bytes: usize) -> Result<()> {
    if sql.len() > max_bytes {
        let (have, limit) = (ByteSize(size(sql.len())), ByteSize(size(max_bytes)));
        return Err(Error::exhausted(format!(
            "the statement has {have} where {limit} is the limit; put long lists into a table and join it"
        )));
    }
    bound_depth(sql)
}

/// Parses a statement within its bounds and refuses what does not only read.
pub(crate) fn parse(sql: &str) -> Result<Statement> {
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

/// What a caller does to a statement between parsing and planning.
pub type Rewrite = dyn Fn(&mut Sql) -> Result<()> + Send + Sync;

/// Has a statement changed, also inside EXPLAIN, and refuses again what does not only read.
pub(crate) fn rewrite(statement: &mut Statement, rewrite: &Rewrite) -> Result<()> {
    match statement {
        Statement::Statement(sql) => rewrite(sql)?,
        Statement::Explain(explain) => self::rewrite(&mut explain.statement, rewrite)?,
        _ => {}
    }
    only_reads(statement)
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
    let calls = nested_calls(&tokens);
    if calls > MAX_CALLS {
        return Err(Error::exhausted(format!(
            "function calls and subqueries are nested {calls} deep where {MAX_CALLS} is the limit; name the inner ones with WITH"
        )));
    }
    Ok(())
}

/// The most calls, arrays and subqueries that are open at once.
fn nested_calls(tokens: &[Token]) -> usize {
    let mut open = Vec::new();
    let (mut depth, mut most) = (0, 0);
    let mut seen = tokens.iter().filter(|t| !matches!(t, Token::Whitespace(_))).peekable();
    let mut before = None;
    while let Some(token) = seen.next() {
        match token {
            Token::LParen | Token::LBracket => {
                let counts = *token == Token::LBracket || before.is_some_and(calls) || seen.peek().is_some_and(|next| selects(next));
                depth += usize::from(counts);
                most = most.max(depth);
                open.push(counts);
            }
            Token::RParen | Token::RBracket => depth -= usize::from(open.pop().unwrap_or(false)),
            _ => {}
        }
        before = Some(token);
    }
    most
}

/// Whether a bracket after this word opens a call. After a word between operands it only groups them.
fn calls(before: &Token) -> bool {
    use Keyword::{AND, AS, BETWEEN, BY, CASE, ELSE, FROM, HAVING, IN, LIKE, NOT, ON, OR, OVER, SELECT, THEN, VALUES, WHEN, WHERE};
    let groups = [AND, AS, BETWEEN, BY, CASE, ELSE, FROM, HAVING, IN, LIKE, NOT, ON, OR, OVER, SELECT, THEN, VALUES, WHEN, WHERE];
    matches!(before, Token::Word(word) if !groups.contains(&word.keyword))
}

fn selects(next: &Token) -> bool {
    matches!(next, Token::Word(word) if matches!(word.keyword, Keyword::SELECT | Keyword::WITH))
}

fn deepens(token: &Token) -> bool {
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

    fn read(sql: &str) -> Result<Statement> {
        bound(sql, 1 << 20)?;
        parse(sql)
    }

    fn error(sql: &str) -> Error {
        read(sql).unwrap_err()
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
            read(sql).unwrap();
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
        let long = bound(&format!("SELECT '{}'", "x".repeat(200)), 100).unwrap_err();
        assert_eq!(long.kind(), ErrorKind::Exhausted);
        let chain = error(&format!("SELECT 1{}", " + 1".repeat(100_000)));
        assert!(chain.message().contains("100001 operators and keywords"), "{chain}");
        let list: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
        read(&format!("SELECT 1 WHERE 1 IN ({})", list.join(","))).unwrap();
        for (open, close) in [("(", ")"), ("NOT ", ""), ("- ", ""), ("CASE WHEN true THEN ", " END"), ("abs(", ")"), ("[", "]")] {
            let e = error(&format!("SELECT {}1{}", open.repeat(400), close.repeat(400)));
            assert!(matches!(e.kind(), ErrorKind::Exhausted | ErrorKind::Invalid), "{open}: {e}");
        }
    }

    #[test]
    fn only_calls_arrays_and_subqueries_count_as_nested() {
        let depth = |sql: &str| nested_calls(&Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap());
        assert_eq!(depth("SELECT ((1 + 2) * (3)) WHERE (a IN (1, 2) AND (b OR (c)))"), 0);
        assert_eq!(depth("SELECT abs (round(x)), sum(y) OVER (ORDER BY z)"), 2);
        assert_eq!(depth("SELECT * FROM (SELECT [1, f(2)] FROM (WITH a AS (SELECT 1) SELECT 1))"), 3);
        assert_eq!(depth(")))]]((abs("), 1);
        assert!(error(&format!("SELECT {}1{}", "abs(".repeat(13), ")".repeat(13))).message().contains("nested 13 deep"));
    }

    #[test]
    fn a_syntax_error_says_where() {
        let e = error("SELECT a\nFROM jobs WHERE ORDER BY a");
        assert!(e.message().contains("line 2, column"), "{e}");
        assert_eq!(e.kind(), ErrorKind::Invalid);
    }
}
