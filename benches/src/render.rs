//! `RESULTS.md` from the rows of the newest run of each bench.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::BENCHES;
use crate::recorder::{home, number, results};

const TITLES: [(&str, &str, &str); 11] = [
    (
        "processes",
        "10,000 `/bin/true` on two slots",
        "Each task is durable, with statistics and logs on, run by a server with one worker of two slots on the same machine. The \
         floor is a program of ours that calls `posix_spawn` on two threads and does nothing else; floor and tidemill take turns. Peers have \
         two slots and run after each other in the same run. HyperQueue's command line cannot be installed from a registry; built from source and \
         measured elsewhere on such a machine it did 0.30 of the floor.",
    ),
    (
        "million",
        "No-op tasks through the whole path",
        "Submit, lease, complete, statistics, with a runner that does nothing: what is left is what tidemill itself costs. A fresh server for each \
         size. Memory is the largest resident set (VmHWM) after the runs of that size.",
    ),
    (
        "latency",
        "From submit to the first task started",
        "One job of one task, sent by HTTP to a server whose worker is idle. The client takes the time before it sends; the task reads the clock \
         itself (`date`), and the statistics hold when the worker started it.",
    ),
    (
        "drivers",
        "The drivers alone",
        "`crates/embedded/examples/drivers_bench.rs`: messages of 200 bytes and items of 100, each call answered after its bytes are on the disk. \
         Ratios to the floor are of calls that a caller could have synced one by one.",
    ),
    (
        "engines",
        "On engines",
        "The same jobs with the ledger, queue, table and objects in PostgreSQL 15 on this machine, beside the embedded drivers in the same run; and with the queue on SQS, the table on DynamoDB and the objects on S3, of which a stand-in (ministack) plays the part: its rate says nothing, but the drivers count every request that they send. Prices are list prices of `us-east-1`, by `crates/aws/src/calls.rs`, for a million tasks; what the installation asks for while it idles is taken off and stands in a row of its own. None of this has run on AWS itself.",
    ),
    (
        "kills",
        "`kill -9` at random moments",
        "Two workers and a manager under a stream of jobs of no-ops and of real processes. Each round kills the manager or a worker at a random \
         moment. Each job is checked at its end: ledger, statistics, and result files against a model. One difference ends the bench without a result.",
    ),
    (
        "grid-calls",
        "The grid: Python functions that do next to nothing",
        "`x + 1`, called by each system with two processes, by the same script (`peers/grid/calls.py`), after a few hundred calls that warm up. The \
         floor is the ceiling of what one Python client can do: 500 calls packed by hand into each task of a pool. Ray has a fifth of the tasks, Dask and \
         Celery a twentieth. Tidemill's tasks and results are durable, each with its record, on one worker with two engines; afterwards the table is \
         asked for every result. ArmoniK publishes 1,040 tasks/s made and 57 results/s collected on a cluster.",
    ),
    (
        "grid-trips",
        "The grid: one call at a time",
        "`x + 1` on an idle system, submitted when the one before has its result, as the client's clock sees it (`peers/grid/calls.py SYSTEM COUNT trips`).",
    ),
    (
        "grid-risk",
        "The grid: an overnight revaluation with QuantLib-Python",
        "The portfolio of `examples/risk`: 1,000 trades under 501 scenarios, by `quantlib_portfolio.py`, in blocks of 20 trades and 10 scenarios, and with \
         nothing packed by hand, one task for each valuation. Engines are warm: each has read the portfolio before the clock starts. Every whole run's \
         measures are compared with the expected ones. The number is pure compute, as CPU seconds of one process that does nothing else, over two times \
         the wall time: 1 is two cores that do nothing but value. The floor for it is what two processes reach that have half of the work each and \
         nothing between them. All of these but Ray and Dask took three turns, one after the other, and medians are compared.",
    ),
    (
        "grid-products",
        "The pricing library, product by product",
        "The trades of `examples/risk` by kind, each on one core, in CPU time: QuantLib through Python, its market moved from scenario to scenario, and \
         `tidemill-pricing`. Both sums of values are compared.",
    ),
    ("tour", "The tour", "`tidemill tour` with a fresh folder: the claims job and what else it runs on its bundled input."),
];

/// Units of which the best is the smallest.
const LESS_IS_BETTER: [&str; 3] = ["ms", "s", "CPU s"];

pub(crate) fn write() -> Result<()> {
    let mut rows: Vec<Value> = Vec::new();
    let mut files: Vec<_> = fs::read_dir(results()).map(|d| d.filter_map(|e| Some(e.ok()?.path())).collect()).unwrap_or_default();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "jsonl")) {
        let text = fs::read_to_string(file)?;
        for line in text.lines() {
            rows.push(serde_json::from_str(line).with_context(|| file.display().to_string())?);
        }
    }
    let reasons = |bench: &str| fs::read_to_string(home().join("reasons").join(format!("{bench}.md"))).unwrap_or_default();
    fs::write(home().join("RESULTS.md"), page(&rows, reasons))?;
    Ok(())
}

fn page(rows: &[Value], reasons: impl Fn(&str) -> String) -> String {
    let mut out = "# Results\n\nMade by `cargo xtask bench` from the rows in `results/`; do not edit. A ratio is a quotient of two numbers of one run. What a goal was \
                   missed for stands under its table and comes from `reasons/`.\n"
        .to_owned();
    for (bench, title, method) in TITLES.iter().filter(|(bench, ..)| BENCHES.contains(bench)) {
        let newest = newest(rows, bench);
        write!(out, "\n## {title}\n\n{method}\n\n").unwrap_or_default();
        match newest.first() {
            None => out.push_str("Not measured yet.\n"),
            Some(first) => {
                table(&mut out, &newest);
                measured(&mut out, first);
            }
        }
        let reasons = reasons(bench);
        if !reasons.trim().is_empty() {
            write!(out, "\n{}\n", reasons.trim()).unwrap_or_default();
        }
    }
    out
}

/// The rows of the bench's last whole run; a quick one only when there is no other.
fn newest<'a>(rows: &'a [Value], bench: &str) -> Vec<&'a Value> {
    let mut runs: BTreeMap<(bool, &str), Vec<&Value>> = BTreeMap::new();
    for row in rows.iter().filter(|r| r["bench"] == bench) {
        let whole = row["quick"] != Value::Bool(true);
        runs.entry((whole, row["at"].as_str().unwrap_or_default())).or_default().push(row);
    }
    runs.pop_last().map(|(_, rows)| rows).unwrap_or_default()
}

fn table(out: &mut String, rows: &[&Value]) {
    let of = |role: &str, like: &Value| {
        let same = rows.iter().filter(|r| r["role"] == role && r["unit"] == like["unit"] && r["group"] == like["group"]);
        same.filter_map(|r| r["value"].as_f64()).reduce(if LESS_IS_BETTER.contains(&like["unit"].as_str().unwrap_or_default()) {
            f64::min
        } else {
            f64::max
        })
    };
    out.push_str("| | number | of the floor | of the best peer | goal | |\n| --- | ---: | ---: | ---: | --- | --- |\n");
    for row in rows {
        let (value, unit) = (row["value"].as_f64(), row["unit"].as_str().unwrap_or_default());
        let text = |key: &str| row[key].as_str().unwrap_or_default().replace('|', "\\|");
        let ratio = |base: Option<f64>| match (value, base) {
            (Some(v), Some(base)) if base > 0.0 && !unit.is_empty() => format!("{:.2}", v / base),
            _ => String::new(),
        };
        let goal = match row["met"].as_bool() {
            Some(true) => format!("{}: met", text("goal")),
            Some(false) => format!("{}: **missed**", text("goal")),
            None => String::new(),
        };
        let shown = value.map_or_else(|| "-".to_owned(), |v| format!("{} {unit}", number(v)).trim().to_owned());
        let peer = if row["role"] == "ours" { ratio(of("peer", row)) } else { String::new() };
        let (what, floor, note) = (text("what"), ratio(of("floor", row)), text("note"));
        writeln!(out, "| {what} | {shown} | {floor} | {peer} | {goal} | {note} |").unwrap_or_default();
    }
}

fn measured(out: &mut String, row: &Value) {
    let facts = &row["facts"];
    let text = |key: &str| facts[key].as_str().unwrap_or("unknown").to_owned();
    let quick = if row["quick"] == Value::Bool(true) { " A quick run, with a tenth of the work." } else { "" };
    write!(
        out,
        "\nMeasured {} at commit {} on {} cores ({}), {} GiB, {}; {}. Load before the run: {}.{quick}\n",
        row["at"].as_str().unwrap_or_default(),
        text("commit"),
        facts["cores"],
        text("cpu"),
        facts["memory_gib"],
        text("kernel"),
        text("rustc"),
        row["load_before"],
    )
    .unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_whole_run_is_shown_with_its_ratios() {
        let row = |at: &str, role: &str, value: f64, quick: bool| {
            json!({"bench": "processes", "at": at, "role": role, "what": role, "value": value, "unit": "tasks/s", "quick": quick,
                   "goal": "at least 9", "met": value >= 9.0, "facts": {"cores": 2}})
        };
        let rows = [
            row("2026-01-01", "ours", 1.0, false),
            row("2026-01-02", "floor", 20.0, false),
            row("2026-01-02", "peer", 4.0, false),
            row("2026-01-02", "ours", 8.0, false),
            row("2026-01-03", "ours", 77.0, true),
        ];
        let page = page(&rows, |bench| if bench == "processes" { "Because.".to_owned() } else { String::new() });
        assert!(page.contains("| ours | 8 tasks/s | 0.40 | 2.00 | at least 9: **missed** |"), "{page}");
        assert!(page.contains("Because.") && page.contains("Not measured yet.") && !page.contains("77"), "{page}");
    }
}
