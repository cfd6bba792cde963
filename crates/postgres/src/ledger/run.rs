//! Sending a transaction.

use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::Poll;

use deadpool_postgres::Object;
use futures::future::{MaybeDone, maybe_done};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::ledger::{Expect, Row, Statement, Value};
use tokio_postgres::types::{ToSql, Type};

use super::sql;
use super::value::{Bound, natural, overflows, read};
use crate::error::{from_pg, is_ambiguous};
use crate::link::{Block, Link, Open, PgError, prepared, prepared_typed};

/// Texts remembered as ones whose parameters the server cannot tell the types of.
const AMBIGUOUS: usize = 1000;
const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

/// Why a transaction did not happen.
#[derive(Debug)]
pub(super) enum Failed {
    /// The answer to the caller.
    Answer(Error),
    /// The server's word on the statement of this number; perhaps the same can be tried again.
    Server(usize, Object, PgError),
}

/// A statement ready to be sent, with what is to be checked of it.
struct Ready {
    prepared: tokio_postgres::Statement,
    /// The server checks the number of rows itself, and answers it.
    counted: bool,
}

impl Ready {
    async fn send(&self, client: &Object, statement: &Statement) -> Result<u64, PgError> {
        let bound: Vec<Bound<'_>> = statement.params.iter().map(Bound).collect();
        let mut params: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|b| b as _).collect();
        let wanted = wanted(statement);
        if !self.counted {
            return client.execute(&self.prepared, &params).await;
        }
        params.push(&wanted);
        let row = client.query_one(&self.prepared, &params).await?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default())
    }
}

fn wanted(statement: &Statement) -> i64 {
    match statement.expect {
        Expect::Rows(rows) => i64::try_from(rows).unwrap_or(i64::MAX),
        Expect::Any => -1,
    }
}

/// Runs the statements as one transaction.
pub(super) async fn transact(link: &Link, client: Object, statements: &[Statement]) -> Result<Vec<u64>, Failed> {
    let mut ready = Vec::with_capacity(statements.len());
    for statement in statements {
        match prepare(link, &client, statement).await {
            Ok(one) => {
                sql::check_count(one.prepared.params().len() - usize::from(one.counted), statement.params.len()).map_err(Failed::Answer)?;
                ready.push(one);
            }
            // It may be about a table that an earlier one makes.
            Err(_) => return step_by_step(link, client, statements).await,
        }
    }
    link.count(Block::Ledger);
    let checked_there = statements.iter().zip(&ready).all(|(s, r)| s.expect == Expect::Any || r.counted);
    if checked_there { at_once(client, statements, &ready).await } else { then_commit(link, client, statements, &ready).await }
}

async fn prepare(link: &Link, client: &Object, statement: &Statement) -> Result<Ready, PgError> {
    if statement.expect != Expect::Any
        && let Some(text) = sql::counted(&statement.sql, statement.params.len())
        && let Ok(prepared) = prepare_for(link, client, &text, &statement.params).await
    {
        return Ok(Ready { prepared, counted: true });
    }
    Ok(Ready { prepared: prepare_for(link, client, &statement.sql, &statement.params).await?, counted: false })
}

/// Prepares a text with the types that the server infers for its parameters. Where it can infer none, or one that is too small for
/// the value, the parameters have the types of the values.
async fn prepare_for(link: &Link, client: &Object, sql: &str, params: &[Value]) -> Result<tokio_postgres::Statement, PgError> {
    let known = || link.ambiguous.lock().unwrap_or_else(PoisonError::into_inner);
    if !known().contains(sql) {
        match prepared(client, sql).await {
            Ok(inferred) if !inferred.params().iter().zip(params).any(|(ty, value)| overflows(value, ty)) => return Ok(inferred),
            Ok(_) => {}
            Err(e) if is_ambiguous(&e) => {
                let mut known = known();
                if known.len() < AMBIGUOUS {
                    known.insert(sql.to_owned());
                }
            }
            Err(e) => return Err(e),
        }
    }
    prepared_typed(client, sql, &types(params)).await
}

fn types(params: &[Value]) -> Vec<Type> {
    params.iter().map(natural).collect()
}

/// Everything in one message.
async fn at_once(client: Object, statements: &[Statement], ready: &[Ready]) -> Result<Vec<u64>, Failed> {
    let outcome = {
        let all = in_order(statements.iter().zip(ready).map(|(s, r)| r.send(&client, s)).collect());
        let (began, touched, ended) = futures::future::join3(client.batch_execute(BEGIN), all, client.batch_execute("COMMIT")).await;
        outcome(began, touched, ended)
    };
    outcome.map_err(|(at, e)| Failed::Server(at, client, e))
}

/// The rows touched, or the first failure with the number of its statement. After the first the server skips the others.
fn outcome(
    began: Result<(), PgError>,
    touched: Vec<Result<u64, PgError>>,
    ended: Result<(), PgError>,
) -> Result<Vec<u64>, (usize, PgError)> {
    let count = touched.len();
    began.map_err(|e| (1, e))?;
    let touched = touched.into_iter().enumerate().map(|(at, t)| t.map_err(|e| (at + 1, e))).collect::<Result<Vec<_>, _>>()?;
    ended.map_err(|e| (count, e))?;
    Ok(touched)
}

/// Polls the futures in their order, so that they send their messages in it, and returns their outputs. The server answers in that
/// order too, so only the first that is not done needs to be looked at.
async fn in_order<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<MaybeDone<F>>>> = futures.into_iter().map(|f| Box::pin(maybe_done(f))).collect();
    let (mut sent, mut done) = (false, 0);
    std::future::poll_fn(|cx| {
        if !sent {
            sent = true;
            for future in &mut futures {
                let _ = future.as_mut().poll(cx);
            }
        }
        while let Some(future) = futures.get_mut(done) {
            match future.as_mut().poll(cx) {
                Poll::Ready(()) => done += 1,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
    futures.iter_mut().filter_map(|f| f.as_mut().take_output()).collect()
}

/// Undoes an open transaction in order to give the caller `answer`.
async fn roll_back(open: Open, answer: Error) -> Failed {
    open.roll_back().await;
    Failed::Answer(answer)
}

/// Undoes an open transaction that the server has refused.
async fn fail(open: Open, at: usize, e: PgError) -> Failed {
    match open.roll_back().await {
        Some(client) => Failed::Server(at, client, e),
        None => Failed::Answer(from_pg(e)),
    }
}

async fn commit(open: Open, touched: Vec<u64>) -> Result<Vec<u64>, Failed> {
    let committed = open.client().batch_execute("COMMIT").await;
    let client = open.ended();
    committed.map(|()| touched).map_err(|e| Failed::Server(1, client, e))
}

/// All statements in one message, and the commit in another when the rows are as expected.
async fn then_commit(link: &Link, client: Object, statements: &[Statement], ready: &[Ready]) -> Result<Vec<u64>, Failed> {
    let open = Open::new(client);
    let all = in_order(statements.iter().zip(ready).map(|(s, r)| r.send(open.client(), s)).collect());
    let (began, touched) = futures::future::join(open.client().batch_execute(BEGIN), all).await;
    let touched = match outcome(began, touched, Ok(())) {
        Ok(touched) => touched,
        Err((at, e)) => return Err(fail(open, at, e).await),
    };
    link.count(Block::Ledger);
    for (at, (statement, touched)) in statements.iter().zip(&touched).enumerate() {
        if let Err(e) = check(at + 1, statement, *touched) {
            return Err(roll_back(open, e).await);
        }
    }
    commit(open, touched).await
}

/// One statement after the other, each prepared when those before it have had their effect.
async fn step_by_step(link: &Link, client: Object, statements: &[Statement]) -> Result<Vec<u64>, Failed> {
    let open = Open::new(client);
    if let Err(e) = open.client().batch_execute(BEGIN).await {
        return Err(fail(open, 1, e).await);
    }
    let mut touched = Vec::with_capacity(statements.len());
    for (at, statement) in statements.iter().enumerate() {
        link.count(Block::Ledger);
        // Not from the cache: what is prepared here may be about a table that is rolled back.
        let ready = match open.client().prepare_typed(&statement.sql, &types(&statement.params)).await {
            Ok(prepared) => Ready { prepared, counted: false },
            Err(e) => return Err(fail(open, at + 1, e).await),
        };
        if let Err(e) = sql::check_count(ready.prepared.params().len(), statement.params.len()) {
            return Err(roll_back(open, e.context(format!("statement {}", at + 1))).await);
        }
        match ready.send(open.client(), statement).await {
            Ok(rows) => touched.push(rows),
            Err(e) => return Err(fail(open, at + 1, e).await),
        }
        if let Err(e) = check(at + 1, statement, touched[at]) {
            return Err(roll_back(open, e).await);
        }
    }
    commit(open, touched).await
}

fn check(at: usize, statement: &Statement, touched: u64) -> Result<()> {
    match statement.expect {
        Expect::Rows(rows) if rows != touched => {
            Err(Error::new(ErrorKind::Conflict, format!("statement {at} touched {touched} rows, expected {rows}")))
        }
        _ => Ok(()),
    }
}

/// Runs one query in a transaction that may only read.
pub(super) async fn query(link: &Link, client: Object, sql: &str, params: &[Value]) -> Result<Vec<Row>, Failed> {
    let prepared = match prepare_for(link, &client, sql, params).await {
        Ok(prepared) => prepared,
        Err(e) => return Err(Failed::Server(1, client, e)),
    };
    sql::check_count(prepared.params().len(), params.len()).map_err(Failed::Answer)?;
    let answered = {
        let bound: Vec<Bound<'_>> = params.iter().map(Bound).collect();
        let params: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|b| b as _).collect();
        let (began, rows, ended) = futures::future::join3(
            client.batch_execute("BEGIN READ ONLY"),
            client.query(&prepared, &params),
            client.batch_execute("COMMIT"),
        )
        .await;
        began.and(rows).and_then(|rows| ended.map(|()| rows))
    };
    match answered {
        Ok(rows) => rows.iter().map(read).collect::<Result<_>>().map_err(Failed::Answer),
        Err(e) => Err(Failed::Server(1, client, e)),
    }
}
