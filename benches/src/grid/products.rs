//! The bundled pricing library against QuantLib through Python, on the same trades, product by product, each on one core.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tidemill_pricing::portfolio::{Market, Portfolio};
use tidemill_pricing::{Side, Terms, longstaff_schwartz};

use super::python::Python;
use crate::memory::cpu_seconds;
use crate::recorder::{Goal, Recorder, Role, Row, home, number};

/// The library is asked again until this much CPU time has gone by, which the kernel counts in hundredths of a second.
const ENOUGH_S: f64 = 1.0;
const SCENARIOS: usize = 501;

struct Product {
    kind: &'static str,
    name: &'static str,
    /// Scenarios that QuantLib is given: a second or a few.
    scenarios: usize,
    /// How far the two sums may be from each other, in parts.
    tolerance: f64,
    least: Option<f64>,
}

const PRODUCTS: [Product; 6] = [
    Product { kind: "european", name: "European", scenarios: 501, tolerance: 1e-9, least: Some(100.0) },
    Product { kind: "barrier_down_out", name: "barrier", scenarios: 501, tolerance: 1e-9, least: Some(10.0) },
    Product { kind: "american", name: "American, finite differences, 100 x 100", scenarios: 40, tolerance: 1e-3, least: Some(4.0) },
    Product { kind: "heston", name: "Heston", scenarios: 501, tolerance: 1e-6, least: Some(10.0) },
    Product { kind: "swap", name: "swap", scenarios: 501, tolerance: 1e-9, least: None },
    Product { kind: "fxfwd", name: "FX forward", scenarios: 501, tolerance: 1e-9, least: None },
];
const PATHS: usize = 50_000;
const LEAST_LONGSTAFF_SCHWARTZ: f64 = 20.0;
/// Two simulations of an option worth 6.66 differ by this much and not much more.
const TOLERANCE_LONGSTAFF_SCHWARTZ: f64 = 0.02;

pub(crate) fn run(recorder: &mut Recorder, share: u64) -> Result<()> {
    let python = Python::find()?;
    let share = usize::try_from(share)?;
    let paths = PATHS / share;
    let mut args: Vec<String> = PRODUCTS.iter().map(|p| format!("{}={}", p.kind, (p.scenarios / share).max(2))).collect();
    args.push(format!("longstaff_schwartz={paths}"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = python.run("products.py", &args, None)?;
    for product in &PRODUCTS {
        let theirs = Measured::read(&answer.value("products")[product.kind], product.kind)?;
        let ours = trades(product, (product.scenarios / share).max(2))?;
        compare(recorder, product.name, &ours, &theirs, product.tolerance, product.least, answer.text("note"))?;
    }
    let theirs = Measured::read(&answer.value("products")["longstaff_schwartz"], "longstaff_schwartz")?;
    let name = format!("American, Longstaff-Schwartz, {} paths x 50 dates", number(paths as f64));
    let ours = simulated(paths)?;
    compare(recorder, &name, &ours, &theirs, TOLERANCE_LONGSTAFF_SCHWARTZ, Some(LEAST_LONGSTAFF_SCHWARTZ), answer.text("note"))?;
    whole(recorder)
}

struct Measured {
    values: f64,
    seconds: f64,
    sum: f64,
}

impl Measured {
    fn read(value: &Value, kind: &str) -> Result<Self> {
        let number = |key: &str| value[key].as_f64().with_context(|| format!("{kind} has no `{key}`"));
        Ok(Self { values: number("values")?, seconds: number("seconds")?, sum: number("sum")? })
    }

    fn rate(&self) -> f64 {
        self.values / self.seconds
    }
}

fn compare(
    recorder: &mut Recorder,
    name: &str,
    ours: &Measured,
    theirs: &Measured,
    tolerance: f64,
    least: Option<f64>,
    note: &str,
) -> Result<()> {
    let off = (ours.sum - theirs.sum).abs() / theirs.sum.abs();
    ensure!(off <= tolerance, "{name}: the values add up to {} and QuantLib's to {}", ours.sum, theirs.sum);
    let row = Row::new(Role::Peer, &format!("{name}: QuantLib-Python"), theirs.rate(), "values/s");
    recorder.add(row.note(&format!("{} values; {note}", number(theirs.values))).group(name));
    let row = Row::new(Role::Ours, &format!("{name}: tidemill-pricing"), ours.rate(), "values/s");
    recorder.add(row.note(&format!("sum within {off:.0e} of QuantLib's")).group(name));
    if let Some(least) = least {
        let row = Row::new(Role::Ours, &format!("{name}: times QuantLib-Python"), ours.rate() / theirs.rate(), "");
        recorder.add(row.goal(Goal::Least(least)).group(name));
    }
    Ok(())
}

fn text(name: &str) -> Result<String> {
    let path = home().join("../examples/risk").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn market() -> Result<Arc<Market>> {
    Ok(Arc::new(Market::read(&text("static.json")?, &text("market_history.csv")?)?))
}

/// All trades of one kind: each value once for the sum, then again and again for the time.
fn trades(product: &Product, scenarios: usize) -> Result<Measured> {
    let all = text("trades.csv")?;
    let (head, rows) = all.split_once('\n').context("trades.csv has one line")?;
    let rows: Vec<&str> = rows.lines().filter(|r| r.split(',').nth(3) == Some(product.kind)).collect();
    let portfolio = Portfolio::read(&format!("{head}\n{}\n", rows.join("\n")), market()?)?;
    let first = portfolio.value(0..rows.len(), 0..scenarios)?;
    ensure!(first.failures().is_empty(), "{}: {:?}", product.name, first.failures());
    let sum = first.as_slice().iter().sum();
    let (values, seconds) = repeat(|| portfolio.value(0..rows.len(), 0..SCENARIOS).map(|v| v.as_slice().len()))?;
    Ok(Measured { values, seconds, sum })
}

fn simulated(paths: usize) -> Result<Measured> {
    let terms = Terms::with_yield(Side::Put, 100.0, 100.0, (0.05, 0.02), 0.2, 1.0);
    let simulation = longstaff_schwartz::Simulation { paths, dates: 50, seed: 1 };
    let sum = longstaff_schwartz::value(&terms, &simulation)?.value;
    let (values, seconds) = repeat(|| longstaff_schwartz::value(&terms, &simulation).map(|_| 1))?;
    Ok(Measured { values, seconds, sum })
}

/// Does it until enough CPU time has gone by. Returns how many values that were, and the time.
fn repeat(mut work: impl FnMut() -> tidemill_base::Result<usize>) -> Result<(f64, f64)> {
    let me = std::process::id();
    let (start, mut values) = (cpu_seconds(me), 0);
    loop {
        values += work()?;
        let seconds = cpu_seconds(me) - start;
        if seconds >= ENOUGH_S {
            return Ok((values as f64, seconds));
        }
    }
}

/// The whole of the example on one core: read, revalued, added up.
fn whole(recorder: &mut Recorder) -> Result<()> {
    let watch = tidemill_runtime::Stopwatch::start();
    let portfolio = Portfolio::read(&text("trades.csv")?, market()?)?;
    let values = portfolio.value(0..portfolio.trades().len(), 0..SCENARIOS)?;
    let nodes = tidemill_pricing::portfolio::risk::by_node(&portfolio, &values)?;
    let seconds = watch.elapsed().as_secs_f64();
    let note = format!(
        "read, {} values, {} sums and their measures, on one core, no grid",
        number((portfolio.trades().len() * SCENARIOS) as f64),
        nodes.len()
    );
    recorder.add(Row::new(Role::Ours, "1,000 trades under 501 scenarios", seconds, "s").note(&note).group("whole"));
    Ok(())
}
