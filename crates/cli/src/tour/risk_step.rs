//! Risk: a portfolio under historical scenarios on the bundled engine, added up to books, desks and the firm, and compared with values that
//! another library has made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use tidemill_api::{JobDetail, OpenSessionRequest};
use tidemill_base::{Error, Result};
use tidemill_client::{ResultEvent, TaskOutcome, submission};
use tidemill_pricing::portfolio::risk::{FIRM, Measures, measures};
use tidemill_pricing_engine as pricing;
use tidemill_runtime::Stopwatch;

use super::{Done, Stage};
use crate::human;
use crate::progress::Subject;
use crate::watch::{Watched, watch};

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!("../../../../examples/risk/", $name))
    };
}

const STATIC: &str = example!("static.json");
const HISTORY: &str = example!("market_history.csv");
const TRADES: &str = example!("trades.csv");
const EXPECTED: &str = example!("expected_nodes.csv");

/// Trades in a task: small enough that no engine waits long for the last one.
const PART: usize = 5;
/// How far a measure may be from the expected one, in parts of it. American options depend on the grid, and so do the nodes they are in.
const TOLERANCE: f64 = 1e-9;
const TOLERANCE_AMERICAN: f64 = 3e-3;

/// A trade's place in the firm.
struct Place {
    desk: String,
    book: String,
}

/// Values of each trade by scenario, of which the first is today.
type Rows = Vec<Vec<f64>>;

/// Revalues the example's portfolio under all scenarios, and compares its risk.
pub(crate) async fn run(stage: &Stage) -> Result<Done> {
    let places = places()?;
    let scenarios = HISTORY.lines().count() - 1;
    let values = human::count((places.len() * scenarios) as u64);
    stage.title(&format!("4. Risk: {} trades under {scenarios} scenarios, {values} values", human::count(places.len() as u64)));
    let (job, outcomes, took) = revalue(stage, places.len(), scenarios).await?;
    stage.expect_success(&job)?;
    let nodes = nodes(&places, &rows(&outcomes, places.len(), scenarios)?);
    let farthest = check(&nodes)?;
    let folder = stage.folder.join("risk");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("nodes.csv"), table(&nodes))?;
    if let Some(firm) = nodes.last() {
        let money = |x: f64| human::count(x.round().max(0.0) as u64);
        let (risk, shortfall) = (money(firm.1.value_at_risk), money(firm.1.expected_shortfall));
        stage.say(&format!("the firm: value at risk 99 % {risk}, expected shortfall 97.5 % {shortfall}"));
    }
    stage.say(&format!(
        "checked: {} books, desks and the firm are what QuantLib makes of them, to {farthest:.0e} where no American option is in them",
        nodes.len()
    ));
    let rate = (places.len() * scenarios) as f64 / took.as_secs_f64();
    let amount = format!("{values} values, {}/s", human::count(rate as u64));
    Ok(Done { what: "risk".to_owned(), job, took, amount, results: Some(folder) })
}

/// Opens a session that keeps the portfolio warm, hands it a task for every few trades, and takes the results as they come.
async fn revalue(stage: &Stage, trades: usize, scenarios: usize) -> Result<(JobDetail, Vec<TaskOutcome>, Duration)> {
    let started = Stopwatch::start();
    let data = json!({"static": STATIC, "market_history": HISTORY, "trades": TRADES});
    let request = OpenSessionRequest {
        session: json!({"name": "risk", "engine": pricing::NAME, "function": {"name": "value"}, "input": "json", "output": "bytes"}),
        setup: Some(STANDARD.encode(data.to_string())),
        client_token: Some(stage.env.id("tour-")),
        ..OpenSessionRequest::default()
    };
    let id = stage.client.open_session(&request).await?.id;
    let block = |from: usize| Bytes::from(json!({"trades": [from, (from + PART).min(trades)], "scenarios": [0, scenarios]}).to_string());
    let tasks: Vec<Bytes> = (0..trades).step_by(PART).map(block).collect();
    stage.client.submit_tasks(&id, submission(&tasks)?, Some(&stage.env.id("tour-"))).await?;
    stage.client.close_session(&id).await?;
    let read = async {
        let (mut results, mut outcomes) = (stage.client.session_results(&id, 0, true), Vec::new());
        while let Some(event) = results.next().await? {
            if let ResultEvent::Delivery { outcomes: more, .. } = event {
                outcomes.extend(more);
            }
        }
        Ok::<_, Error>((outcomes, started.elapsed()))
    };
    let (watched, read) = tokio::try_join!(watch(&stage.client, Subject::Session(&id), stage.style), read)?;
    match watched {
        Watched::Ended(job) => Ok((*job, read.0, read.1)),
        Watched::Interrupted => Err(Error::conflict("the tour was interrupted")),
    }
}

fn places() -> Result<Vec<Place>> {
    let wrong = |e: csv::Error| Error::internal("the example's trades are no CSV").with_source(e);
    let mut reader = csv::Reader::from_reader(TRADES.as_bytes());
    let header = reader.headers().map_err(wrong)?.clone();
    let column = |name: &str| header.iter().position(|h| h == name).ok_or_else(|| Error::internal(format!("trades have no `{name}`")));
    let (desk, book) = (column("desk")?, column("book")?);
    let place = |row: csv::Result<csv::StringRecord>| {
        let row = row.map_err(wrong)?;
        Ok(Place { desk: row.get(desk).unwrap_or_default().to_owned(), book: row.get(book).unwrap_or_default().to_owned() })
    };
    reader.records().map(place).collect()
}

/// The values out of the results, in the order of the trades. `Internal` names a task that is missing, failed, or is not what was asked for.
fn rows(outcomes: &[TaskOutcome], trades: usize, scenarios: usize) -> Result<Rows> {
    let mut by_task: BTreeMap<u64, &TaskOutcome> = BTreeMap::new();
    for outcome in outcomes {
        if by_task.insert(outcome.task, outcome).is_some() {
            return Err(Error::internal(format!("task {} has two results", outcome.task)));
        }
    }
    let mut rows = Vec::with_capacity(trades);
    for (task, outcome) in by_task {
        let values: Vec<f64> = outcome.bytes.chunks_exact(8).filter_map(|b| Some(f64::from_le_bytes(b.try_into().ok()?))).collect();
        if !outcome.ok || !values.len().is_multiple_of(scenarios) || values.iter().any(|v| !v.is_finite()) {
            let said = String::from_utf8_lossy(&outcome.bytes);
            return Err(Error::internal(format!("task {task} has no values: {}", human::one_line(&said, 200))));
        }
        rows.extend(values.chunks_exact(scenarios).map(<[f64]>::to_vec));
    }
    if rows.len() == trades {
        Ok(rows)
    } else {
        Err(Error::internal(format!("there are values of {} trades and not of {trades}", rows.len())))
    }
}

/// Risk of books, desks and the firm: profits and losses are summed in each scenario first, order statistics come last.
fn nodes(places: &[Place], rows: &[Vec<f64>]) -> Vec<(String, Measures)> {
    let (mut books, mut desks, mut firm) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (place, row) in places.iter().zip(rows) {
        let book = books.entry(format!("{}/{}", place.desk, place.book)).or_insert_with(Vec::new);
        for sum in [book, desks.entry(place.desk.clone()).or_insert_with(Vec::new), &mut firm] {
            sum.resize(row.len().saturating_sub(1), 0.0);
            sum.iter_mut().zip(&row[1..]).for_each(|(sum, value)| *sum += value - row[0]);
        }
    }
    let all = books.into_iter().chain(desks).chain([(FIRM.to_owned(), firm)]);
    all.map(|(name, profit)| (name, measures(profit))).collect()
}

/// Compares each node; the largest difference, in parts of the measure, where no American option is in it.
fn check(nodes: &[(String, Measures)]) -> Result<f64> {
    let mut farthest: f64 = 0.0;
    let mut expected = EXPECTED.lines().skip(1);
    for (name, got) in nodes {
        let row: Vec<&str> = expected.next().unwrap_or_default().split(',').collect();
        let american = name.contains("AMER") || name == "EQ" || name == FIRM;
        for (what, got, want) in
            [("value at risk", got.value_at_risk, row.get(1)), ("expected shortfall", got.expected_shortfall, row.get(2))]
        {
            let want = want.and_then(|w| w.parse::<f64>().ok()).unwrap_or(f64::NAN);
            let off = (got / want - 1.0).abs();
            let near = off <= if american { TOLERANCE_AMERICAN } else { TOLERANCE };
            if row.first() != Some(&name.as_str()) || !near {
                return Err(Error::internal(format!("the {what} of {name} is {got} and should be {want}")));
            }
            farthest = if american { farthest } else { farthest.max(off) };
        }
    }
    match expected.next() {
        Some(row) => Err(Error::internal(format!("there is nothing for `{row}`"))),
        None => Ok(farthest),
    }
}

fn table(nodes: &[(String, Measures)]) -> String {
    let mut out = "node,VaR99,ES97.5\n".to_owned();
    for (name, m) in nodes {
        writeln!(out, "{name},{:.6},{:.6}", m.value_at_risk, m.expected_shortfall).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_pricing::portfolio::{Market, Portfolio};

    /// As the engine answers, computed here.
    fn outcomes(scenarios: usize) -> Vec<TaskOutcome> {
        let portfolio = Portfolio::read(TRADES, Market::read(STATIC, HISTORY).unwrap().into()).unwrap();
        let mut out = Vec::new();
        for (task, from) in (0..1_000).step_by(50).enumerate() {
            let values = portfolio.value(from..from + 50, 0..scenarios).unwrap();
            let bytes: Vec<u8> = values.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect();
            out.push(TaskOutcome { task: task as u64, run_us: 1, ok: true, bytes: bytes.into() });
        }
        // They come in any order.
        out.reverse();
        out
    }

    #[test]
    fn the_check_finds_what_is_wrong() {
        let (places, all) = (places().unwrap(), outcomes(501));
        let values = rows(&all, 1_000, 501).unwrap();
        assert!(check(&nodes(&places, &values)).unwrap() < TOLERANCE);
        assert!(table(&nodes(&places, &values)).lines().count() == 22);
        let mut wrong = values.clone();
        wrong[0].iter_mut().skip(1).for_each(|v| *v -= 10.0);
        assert!(check(&nodes(&places, &wrong)).unwrap_err().message().contains("EQ/EQ-VAN-1"));
        assert!(rows(&all[1..], 1_000, 501).unwrap_err().message().contains("950 trades"));
        let twice = [&all[..], &all[..1]].concat();
        assert!(rows(&twice, 1_000, 501).unwrap_err().message().contains("two results"));
        let mut failed = all;
        (failed[3].ok, failed[3].bytes) = (false, Bytes::from("no such trade"));
        assert!(rows(&failed, 1_000, 501).unwrap_err().message().contains("no such trade"));
    }
}
