//! The batch system on engines: its rate on PostgreSQL beside the embedded drivers, and what a million tasks ask of AWS.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tidemill_api::JobDetail;

use crate::mill::{Mill, Where};
use crate::recorder::{Goal, Recorder, Role, Row, median, number};
use crate::verify;

const LEAST_RATE: f64 = 20_000.0;
const MOST_USD: f64 = 0.10;
const POSTGRES: &str = "TIDEMILL_TEST_POSTGRES";
const MINISTACK: &str = "TIDEMILL_TEST_MINISTACK";
/// Requests that are sent whether or not there is work, in so long, are taken off what a job has asked for.
const IDLE: Duration = Duration::from_secs(20);

pub(crate) async fn run(recorder: &mut Recorder, count: u64) -> Result<()> {
    rates(recorder, count).await?;
    requests(recorder, count).await
}

fn noops(count: u64) -> Value {
    json!({"name": "no-ops", "stage": [{"array": format!("1-{count}"), "noop": true}]})
}

/// No-ops with two workers, on the data folder and on the database in turn.
async fn rates(recorder: &mut Recorder, count: u64) -> Result<()> {
    let embedded = rate(&Where::Folder, count).await?;
    let name = format!("{} no-ops, two workers", number(count as f64));
    recorder.add(Row::new(Role::Ours, &format!("{name}: embedded"), embedded, "tasks/s").note("median of 3"));
    let Ok(url) = std::env::var(POSTGRES) else {
        recorder.add(Row::absent(&format!("{name}: PostgreSQL"), &missing(POSTGRES)));
        return Ok(());
    };
    let on = rate(&Where::Postgres { url }, count).await?;
    let note = format!("median of 3; {:.2} of embedded", on / embedded);
    recorder.add(Row::new(Role::Ours, &format!("{name}: PostgreSQL"), on, "tasks/s").goal(Goal::Least(LEAST_RATE)).note(&note));
    Ok(())
}

async fn rate(place: &Where, count: u64) -> Result<f64> {
    let mill = Mill::start_on(place, 2, 1).await?;
    mill.run(noops(100), Duration::from_millis(20)).await?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let job = mill.run(noops(count), Duration::from_millis(10)).await?;
        rates.push(count as f64 / verify::seconds(&job)?);
        if rates.len() == 3 {
            verify::settled(&mill, &job, count).await?;
        }
    }
    Ok(median(&rates))
}

/// What jobs of tiny and of large tasks ask of the services, counted by the drivers, at list price.
async fn requests(recorder: &mut Recorder, count: u64) -> Result<()> {
    let (Ok(url), Ok(endpoint)) = (std::env::var(POSTGRES), std::env::var(MINISTACK)) else {
        recorder.add(Row::absent("requests to SQS, DynamoDB and S3", &format!("{} and {}", missing(POSTGRES), missing(MINISTACK))));
        return Ok(());
    };
    let mill = Mill::start_on(&Where::Aws { url, endpoint }, 2, 1).await?;
    mill.run(noops(100), Duration::from_millis(50)).await?;
    let idle = idle(&mill).await?;
    let tiny = bill(&mill, noops(count), count, &idle).await?;
    add_bill(recorder, "no-ops", &tiny, Some(Goal::Most(MOST_USD)));
    let tasks = (count / 10_000).max(10);
    let large = json!({"name": "large", "stage": [{"array": format!("1-{tasks}"), "command": ["sleep", "0.5"]}]});
    add_bill(recorder, "tasks of half a second with logs", &bill(&mill, large, tasks, &idle).await?, None);
    let per_hour = usd(&idle, SERVICES) / IDLE.as_secs_f64() * 3600.0;
    let note = "one manager and two workers that wait for work";
    recorder.add(Row::new(Role::Ours, "requests of an idle installation", per_hour, "USD/hour").note(note));
    Ok(())
}

/// Requests and their price, by service.
type Requests = BTreeMap<String, (f64, f64)>;

const SERVICES: &[&str] = &["sqs", "dynamodb", "dynamodbstreams", "s3"];
/// Those of queue and table; the ledger is a database that is not paid for by the request.
const RECORDS: &[&str] = &["sqs", "dynamodb", "dynamodbstreams"];

fn usd(requests: &Requests, of: &[&str]) -> f64 {
    requests.iter().filter(|(service, _)| of.contains(&service.as_str())).map(|(_, (_, usd))| usd).sum()
}

/// What is asked within [`IDLE`] when there is nothing to do.
async fn idle(mill: &Mill) -> Result<Requests> {
    // What the job before has left to be written.
    tidemill_runtime::sleep(Duration::from_secs(35)).await;
    let before = counted(mill).await?;
    tidemill_runtime::sleep(IDLE).await;
    Ok(minus(&counted(mill).await?, &before, 1.0))
}

struct Bill {
    tasks: u64,
    requests: Requests,
    job: JobDetail,
}

/// Runs a job and counts until its statistics are in their segment as well.
async fn bill(mill: &Mill, job: Value, tasks: u64, idle: &Requests) -> Result<Bill> {
    let watch = tidemill_runtime::Stopwatch::start();
    let before = counted(mill).await?;
    let job = mill.run(job, Duration::from_millis(50)).await?;
    tidemill_runtime::sleep(Duration::from_secs(2)).await;
    let spent = minus(&counted(mill).await?, &before, 1.0);
    let requests = minus(&spent, idle, watch.elapsed().as_secs_f64() / IDLE.as_secs_f64());
    verify::settled(mill, &job, tasks).await?;
    Ok(Bill { tasks, requests, job })
}

fn minus(a: &Requests, b: &Requests, times: f64) -> Requests {
    let of = |service: &String| b.get(service).copied().unwrap_or_default();
    a.iter().map(|(s, (n, usd))| (s.clone(), ((n - of(s).0 * times).max(0.0), (usd - of(s).1 * times).max(0.0)))).collect()
}

fn add_bill(recorder: &mut Recorder, what: &str, bill: &Bill, goal: Option<Goal>) {
    let million = 1e6 / bill.tasks as f64;
    let counts: Vec<String> = bill
        .requests
        .iter()
        .filter(|(service, _)| SERVICES.contains(&service.as_str()))
        .map(|(service, (n, _))| format!("{service} {}", number(n * million)))
        .collect();
    let rate = verify::seconds(&bill.job).map_or(0.0, |s| bill.tasks as f64 / s);
    let note = format!("requests: {}; {} tasks at {}/s on the stand-in", counts.join(", "), bill.tasks, number(rate));
    let row =
        Row::new(Role::Ours, &format!("a million {what}: queue and table"), usd(&bill.requests, RECORDS) * million, "USD").note(&note);
    recorder.add(match goal {
        Some(goal) => row.goal(goal),
        None => row,
    });
    recorder.add(Row::new(Role::Ours, &format!("a million {what}: objects"), usd(&bill.requests, &["s3"]) * million, "USD"));
}

/// The counters of the server, through which its local workers reach every engine.
async fn counted(mill: &Mill) -> Result<Requests> {
    let text = mill.metrics().await?;
    let mut out = Requests::new();
    for line in text.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Some(service) = name.split_once("service=\"").and_then(|(_, rest)| rest.split('"').next()) else { continue };
        let value: f64 = value.parse().with_context(|| line.to_owned())?;
        let entry = out.entry(service.to_owned()).or_default();
        match name.split('{').next() {
            Some("tidemill_engine_requests_total") => entry.0 += value,
            Some("tidemill_engine_list_price_usd") => entry.1 += value,
            _ => {}
        }
    }
    Ok(out)
}

fn missing(variable: &str) -> String {
    format!("{variable} is not set; `cargo xtask stand-ins up` prints it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_what_was_spent_without_what_idling_costs() {
        let of = |n: f64, usd: f64| Requests::from([("sqs".to_owned(), (n, usd))]);
        assert_eq!(minus(&of(100.0, 1.0), &of(10.0, 0.1), 2.0), of(80.0, 0.8));
        assert_eq!(minus(&of(1.0, 0.1), &of(10.0, 1.0), 1.0), of(0.0, 0.0));
        assert!((usd(&of(1.0, 0.5), RECORDS) - 0.5).abs() < 1e-9 && usd(&of(1.0, 0.5), &["s3"]) == 0.0);
    }
}
