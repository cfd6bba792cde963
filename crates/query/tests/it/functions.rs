//! The functions that people expect are there and right.

use crate::support::{csv, engine, one, tasks};

#[tokio::test]
async fn expected_functions_give_expected_values() {
    let engine = engine(vec![tasks("j1", 0, 101)]);
    for (expression, expected) in [
        ("median(seconds)", "12.5"),
        ("round(approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds))", "24.0"),
        ("percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)", "12.5"),
        ("approx_distinct(state)", "2"),
        ("count(DISTINCT state)", "2"),
        ("round(stddev(seconds), 3)", "7.325"),
        ("count(*) FILTER (WHERE state = 'failed')", "11"),
        ("min(ended)", "2026-01-01T00:00:00Z"),
        ("date_trunc('minute', max(ended))", "2026-01-01T00:01:00Z"),
        ("string_agg(DISTINCT job, ',')", "j1"),
        ("arrow_typeof(sum(task))", "Int64"),
    ] {
        assert_eq!(one(&engine, &format!("SELECT {expression} FROM batch.tasks")).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn expected_scalars_give_expected_values() {
    let engine = engine(Vec::new());
    for (expression, expected) in [
        ("upper('aß')", "ASS"),
        ("length('grüße')", "5"),
        ("substr('abcdef', 2, 3)", "bcd"),
        ("substring('abcdef' FROM 2 FOR 3)", "bcd"),
        ("position('c' IN 'abc')", "3"),
        ("lpad('7', 3, '0') || right('xyz', 1)", "007z"),
        ("split_part('a/b/c', '/', 2)", "b"),
        ("regexp_replace('j-12', '[0-9]+', 'n')", "j-n"),
        ("'j-12' ~ '^j-[0-9]+$'", "true"),
        ("'Job' ILIKE 'j%'", "true"),
        ("coalesce(NULL, 3)", "3"),
        ("round(sqrt(2.0), 3)", "1.414"),
        ("5 % 3", "2"),
        ("extract(year FROM TIMESTAMP '2026-03-01')", "2026"),
        ("date_part('dow', DATE '2026-11-21')", "6"),
        ("date_bin(INTERVAL '15 minutes', TIMESTAMP '2026-01-01T00:44:00')", "2026-01-01T00:30:00"),
        ("to_timestamp('2026-01-01T00:00:00Z') < now()", "true"),
        ("TIMESTAMP '2026-01-01' + INTERVAL '1 day'", "2026-01-02T00:00:00"),
        ("to_char(DATE '2026-11-21', '%d.%m.%Y')", "21.11.2026"),
        ("array_length([1, 2, 3])", "3"),
        ("encode('hi', 'hex')", "6869"),
        ("CASE WHEN 1 > 2 THEN 'a' ELSE 'b' END", "b"),
        ("'12'::bigint + 1", "13"),
        ("greatest(1, 3, 2)", "3"),
    ] {
        assert_eq!(one(&engine, &format!("SELECT {expression}")).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn windows_joins_unions_and_series_work() {
    let engine = engine(vec![tasks("j1", 0, 5), tasks("j2", 0, 2)]);
    let sql = "SELECT job, task, row_number() OVER w AS n, lag(task) OVER w AS before, sum(task) OVER w AS total \
               FROM batch.tasks WHERE task < 2 WINDOW w AS (PARTITION BY job ORDER BY task) ORDER BY job, task";
    assert_eq!(csv(&engine, sql).await, "job,task,n,before,total\r\nj1,0,1,,0\r\nj1,1,2,0,1\r\nj2,0,1,,0\r\nj2,1,2,0,1\r\n");
    let sql = "WITH big AS (SELECT job FROM batch.tasks GROUP BY job HAVING count(*) > 3) \
               SELECT t.job, count(*) AS n FROM batch.tasks t JOIN big USING (job) GROUP BY t.job UNION ALL SELECT 'sum', 7 ORDER BY n";
    assert_eq!(csv(&engine, sql).await, "job,n\r\nj1,5\r\nsum,7\r\n");
    let sql = "SELECT count(*) FROM generate_series(1, 10) s(i) LEFT JOIN batch.tasks t ON t.task = s.i WHERE t.task IS NULL";
    assert_eq!(one(&engine, sql).await, "6");
}
