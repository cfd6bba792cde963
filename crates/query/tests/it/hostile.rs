//! Statements made to hurt: they end in an answer or an error, never in a panic, a dead thread or a hang.

use std::time::Duration;

use tidemill_base::ErrorKind;
use tidemill_query::{Engine, EngineSettings, Limits};

use crate::support::{csv, engine, engine_with, tasks};

/// Runs a statement to its end; a panic inside the engine, or a bug that it admits to, fails the test.
async fn survive(engine: &Engine, sql: &str) {
    let limits = Limits { timeout: Some(Duration::from_secs(5)), max_rows: Some(1_000), cut: true };
    let result = match engine.query(sql, limits).await {
        Ok(mut answer) => loop {
            match answer.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        },
        Err(e) => Err(e),
    };
    if let Err(e) = result {
        assert!(!e.message().contains("please report it"), "{}: {e}", sql.escape_debug());
    }
}

#[tokio::test]
async fn depth_and_length_do_not_break_the_stack() {
    let long = |n: usize, head: &str, part: &str, tail: &str| format!("{head}{}{tail}", part.repeat(n));
    let settings = EngineSettings { max_statement: tidemill_base::ByteSize(1 << 20), ..EngineSettings::default() };
    let engine = engine_with(vec![tasks("j", 0, 3)], settings);
    for n in [12, 60, 450, 5_000] {
        for sql in [
            long(n, "SELECT 1", " + 1", ""),
            long(n, "SELECT task", " + task", " FROM batch.tasks"),
            long(n, "SELECT 1 WHERE true", " AND true", ""),
            long(n, "SELECT task FROM batch.tasks WHERE task = 1", " OR task = 2", ""),
            long(n, "SELECT ", "NOT ", "true"),
            long(n, "SELECT ", "- ", "1"),
            long(n, "SELECT 'a'", " || 'b'", ""),
            long(n, "SELECT 1", "::bigint", ""),
            long(n, "SELECT [1]", "[1]", ""),
            long(n, "SELECT x", ".y", ""),
            long(n, "SELECT 1", " UNION ALL SELECT 1", ""),
            long(n, "SELECT 1", " IS NULL", ""),
            format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
            format!("SELECT {}1{}", "abs(".repeat(n), ")".repeat(n)),
            format!("SELECT {}1{}", "[".repeat(n), "]".repeat(n)),
            format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(n), " END".repeat(n)),
            format!("{}SELECT 1{}", "SELECT * FROM (".repeat(n), ")".repeat(n)),
            format!("SELECT 1 WHERE 1 IN ({}1)", "1, ".repeat(n)),
            format!("SELECT {}1", "1, ".repeat(n.min(450))),
            format!("VALUES {}(1)", "(1), ".repeat(n)),
        ] {
            survive(&engine, &sql).await;
        }
    }
    for n in [5, 40] {
        survive(&engine, &long(n, "SELECT count(*) FROM batch.tasks", " NATURAL JOIN batch.tasks", "")).await;
    }
}

const SEEDS: &[&str] = &[
    "SELECT job, count(*), sum(seconds) FROM batch.tasks WHERE state = 'failed' AND task > 3 GROUP BY job ORDER BY 2 DESC LIMIT 5",
    "WITH t AS (SELECT * FROM batch.tasks) SELECT a.job, b.task FROM t a JOIN t b ON a.task = b.task WHERE a.ended < now()",
    "SELECT CASE WHEN task % 2 = 0 THEN 'even' ELSE upper(state) END, date_trunc('hour', ended) FROM batch.tasks",
    "SELECT row_number() OVER (PARTITION BY job ORDER BY task), median(seconds) OVER () FROM batch.tasks",
    "SELECT approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds), array_agg(job)[1] FROM batch.tasks HAVING count(*) > 0",
    "SELECT regexp_replace(job, '[a-z]+', 'x'), substr(state, 1, 2), task::varchar || '%' FROM batch.tasks WHERE job LIKE 'j%'",
    "SHOW COLUMNS FROM batch.tasks",
    "EXPLAIN SELECT task FROM batch.tasks WHERE task IN (SELECT max(task) FROM batch.tasks) UNION SELECT 1",
    "SELECT INTERVAL '1 day' + ended, extract(year FROM ended), TIMESTAMP '2026-01-01' FROM batch.tasks -- end",
];

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "(",
    ")",
    ",",
    "'",
    "\"",
    "NULL",
    "-1",
    "9223372036854775808",
    "1e400",
    "NaN",
    "batch.tasks",
    "task",
    "job",
    "ended",
    "*",
    "::bigint",
    "::timestamp",
    "INTERVAL '1 day'",
    "[",
    "]",
    "{",
    "}",
    ";",
    "--",
    "/*",
    "$1",
    "?",
    "é",
    "\0",
    "OVER ()",
    "ORDER BY",
    "GROUP BY",
    "LIMIT",
    "OFFSET",
    "UNION",
    "EXCEPT",
    "NOT",
    "IN",
    "BETWEEN",
    "AND",
    "/ 0",
    "% 0",
    "LIKE '%'",
    "DISTINCT",
];

/// What stands for a column or a number in [`SEEDS`].
const OPERANDS: &[&str] = &["job", "task", "state", "seconds", "ended", "now()", "2", "5", "'failed'", "1"];

const VALUES: &[&str] = &[
    "job",
    "task",
    "state",
    "seconds",
    "ended",
    "NULL",
    "-1",
    "0",
    "1e300",
    "''",
    "'9'",
    "true",
    "now()",
    "ended - ended",
    "[task]",
    "(SELECT 1)",
    "-9223372036854775808",
    "task / 0",
    "seconds % 0",
    "CAST(NULL AS BIGINT)",
    "'2026-02-30'::date",
    "'x'::bytea",
    "INTERVAL '99999999 year'",
    "to_timestamp(task * 9000000000)",
    "repeat(job, 1000)",
    "1::decimal(38, 10)",
    "{'a': 1}",
    "arrow_cast(task, 'UInt8')",
    "DATE '9999-12-31'",
];

/// Another value in the place of one: the statement mostly stays one, and types meet that were not made for each other.
fn retyped(rng: &mut fastrand::Rng, sql: &str) -> String {
    let operand = rng.choice(OPERANDS).unwrap();
    let places: Vec<usize> = sql.match_indices(operand).map(|(at, _)| at).collect();
    let Some(at) = rng.choice(places) else { return sql.to_owned() };
    format!("{}{}{}", &sql[..at], rng.choice(VALUES).unwrap(), &sql[at + operand.len()..])
}

/// One change: a piece cut out, doubled or moved, a word put in, or a character changed.
fn mutated(rng: &mut fastrand::Rng, sql: &str) -> String {
    let mut parts: Vec<String> = sql.split_inclusive(' ').map(str::to_owned).collect();
    for _ in 0..rng.usize(1..3) {
        let at = rng.usize(0..parts.len());
        let other = rng.usize(0..parts.len());
        match rng.u8(0..6) {
            0 if parts.len() > 1 => drop(parts.remove(at)),
            1 => parts.insert(at, parts[other].clone()),
            2 => parts.swap(at, other),
            3 => parts[at] = format!("{} ", rng.choice(WORDS).unwrap()),
            4 => parts.insert(at, format!("{} ", rng.choice(WORDS).unwrap())),
            _ => {
                let mut chars: Vec<char> = parts[at].chars().collect();
                let i = rng.usize(0..chars.len().max(1)).min(chars.len().saturating_sub(1));
                if let Some(c) = chars.get_mut(i) {
                    *c = rng.char(..);
                }
                parts[at] = chars.into_iter().collect();
            }
        }
    }
    parts.concat()
}

#[tokio::test]
async fn mutated_statements_never_panic() {
    let engine = engine(vec![tasks("j1", 0, 5)]);
    for sql in SEEDS {
        csv(&engine, sql).await;
    }
    let mut rng = fastrand::Rng::with_seed(20_260_101);
    let mut answered = 0_u32;
    for case in 0..1_500 {
        let mut sql = SEEDS[case % SEEDS.len()].to_owned();
        for _ in 0..rng.usize(0..4) {
            sql = retyped(&mut rng, &sql);
        }
        if case % 2 == 0 {
            sql = mutated(&mut rng, &sql);
        }
        answered += u32::from(engine.query(&sql, Limits::default()).await.is_ok());
        survive(&engine, &sql).await;
    }
    assert!(answered > 100, "mutations that all fail to parse test nothing but the parser: {answered}");
}

#[tokio::test]
async fn random_bytes_never_panic() {
    let engine = engine(Vec::new());
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..rng.usize(0..120)).map(|_| rng.u8(..)).collect();
        survive(&engine, &String::from_utf8_lossy(&bytes)).await;
        let words: Vec<&str> = (0..rng.usize(1..12)).map(|_| *rng.choice(WORDS).unwrap()).collect();
        survive(&engine, &words.join(" ")).await;
    }
    let e = engine.query("\u{0}", Limits::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
}
