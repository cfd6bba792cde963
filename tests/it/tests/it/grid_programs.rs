//! Programs of files on the grid: an actuarial projection (`examples/actuarial`) that knows nothing of engines, over tasks of very different sizes,
//! added up by SQL and by a tree of tasks. What must come out is computed here, by the formulas and not by the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use tidemill_it::{Options, Process, Server, checkout, eventually, program, python_with, skipped};

/// One policy, as tasks have it.
#[derive(Debug, Clone, Copy)]
struct Policy {
    number: u64,
    endowment: bool,
    age: u32,
    years: u32,
    sum_assured: f64,
    premium: f64,
}

impl Policy {
    /// All different, and the same in every run.
    fn of(number: u64) -> Self {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let part = |of: u64, shift: u64| (mixed >> shift) % of;
        let sum_assured = 1_000.0 * (20 + part(480, 3)) as f64;
        let endowment = part(3, 11) == 0;
        let premium = sum_assured * if endowment { 0.031 } else { 0.0024 } * (0.8 + part(40, 5) as f64 / 100.0);
        Self { number, endowment, age: 18 + part(50, 0) as u32, years: 5 + part(36, 7) as u32, sum_assured, premium }
    }

    fn kind(self) -> &'static str {
        if self.endowment { "endowment" } else { "term" }
    }

    fn row(self) -> Value {
        json!({"policy": self.number, "kind": self.kind(), "age": self.age, "years": self.years, "sum_assured": self.sum_assured,
            "premium": self.premium})
    }

    /// Reserve, claims and their duration, in closed form for each year: the chance to be in force at the start of year t is the chance to live until
    /// then times that of never having lapsed.
    fn values(self) -> Valued {
        let (interest, inflation, expense, lapse) = (0.0225_f64, 0.02_f64, 35.0, 0.031_f64);
        let (a, b, c) = (0.0005_f64, 0.0000759_f64, 1.09144_f64);
        let lives = |from: f64, span: f64| (-(a * span + b * c.powf(from) * (c.powf(span) - 1.0) / c.ln())).exp();
        let age = f64::from(self.age);
        let in_force = |t: u32| lives(age, f64::from(t)) * (1.0 - lapse).powf(f64::from(t));
        let (mut claims, mut weighted, mut costs, mut premiums) = (0.0, 0.0, 0.0, 0.0);
        for t in 0..self.years {
            let end = f64::from(t) + 1.0;
            let mut benefit = in_force(t) * (1.0 - lives(age + f64::from(t), 1.0)) * self.sum_assured;
            if self.endowment && t + 1 == self.years {
                benefit += in_force(self.years) * self.sum_assured;
            }
            claims += benefit * (1.0 + interest).powf(-end);
            weighted += end * benefit * (1.0 + interest).powf(-end);
            premiums += in_force(t) * self.premium * (1.0 + interest).powf(-f64::from(t));
            costs += in_force(t) * expense * ((1.0 + inflation) / (1.0 + interest)).powf(f64::from(t));
        }
        Valued { policy: self, reserve: claims + costs - premiums, claims, duration: weighted / claims }
    }
}

#[derive(Debug, Clone, Copy)]
struct Valued {
    policy: Policy,
    reserve: f64,
    claims: f64,
    duration: f64,
}

/// What the whole portfolio must come to.
#[derive(Debug)]
struct Totals {
    sum: f64,
    squares: f64,
    duration: f64,
    /// Policies with the largest reserves, the largest first.
    largest: Vec<u64>,
}

fn totals(values: &[Valued]) -> Totals {
    let claims: f64 = values.iter().map(|v| v.claims).sum();
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.reserve.total_cmp(&a.reserve));
    Totals {
        sum: values.iter().map(|v| v.reserve).sum(),
        squares: values.iter().map(|v| v.reserve * v.reserve).sum(),
        duration: values.iter().map(|v| v.claims * v.duration).sum::<f64>() / claims,
        largest: sorted.iter().take(10).map(|v| v.policy.number).collect(),
    }
}

/// Tasks of very different sizes: most have a few policies, and one in seventeen has very many.
fn portfolio() -> Vec<Vec<Policy>> {
    let sizes = (0..60_u64).map(|task| if task % 17 == 3 { 900 + 150 * task } else { 1 + task * task % 23 });
    let mut next = 0;
    let policies = sizes.map(|size| {
        next += size;
        (next - size..next).map(Policy::of).collect()
    });
    policies.collect()
}

const COMMAND: &str = r#"command=["python3", "{package:projection}/project.py", "{data}", "{inputs}", "{outputs}"]"#;

/// Runs the projection of these tasks, and returns the session's id.
fn project(server: &Server, tasks: &[Value], more: &[&str]) -> String {
    let folder = checkout().join("examples/actuarial").display().to_string();
    let setup = format!("{folder}/assumptions.json");
    server.cli(&["grid", "package", "push", "projection", "1", &folder]).ok();
    let lines: String = tasks.iter().map(|t| format!("{t}\n")).collect();
    let call = ["grid", "run", "--engine", "program", "--name", "run", "--package", "projection", "--setup", &setup, "--param", COMMAND];
    let all = [&call[..], &["--json", "-", "--detach"], more].concat();
    server.call(&all).stdin(lines).run().ok().word().to_owned()
}

fn task(policies: &[Policy]) -> Value {
    json!({"policies.csv": policies.iter().map(|p| p.row()).collect::<Vec<_>>()})
}

fn no_python(test: &str) -> bool {
    let missing = program("python3").is_none();
    if missing {
        skipped(test, "there is no python3");
    }
    missing
}

#[track_caller]
fn close(got: &Value, want: f64) {
    let got = got.as_f64().unwrap_or_else(|| panic!("{got} is no number"));
    assert!((got - want).abs() <= 1e-9 * want.abs(), "{got} and not {want}");
}

fn engines(server: &Server) -> Vec<Process> {
    let of = tidemill_it::processes_of(server.folder());
    of.into_iter().filter(|p| p.args().windows(2).any(|a| a == ["engine", "program"])).collect()
}

/// The projection's values of each policy are the formulas', each once.
fn check_rows(server: &Server, id: &str, values: &[Valued]) {
    let rows = server.sql(&format!("SELECT policy, kind, reserve, claims, duration FROM grid.{id} ORDER BY policy"));
    assert_eq!(rows.len(), values.len());
    for (row, want) in rows.iter().zip(values) {
        assert_eq!((&row["policy"], &row["kind"]), (&want.policy.number.into(), &want.policy.kind().into()));
        for (column, want) in [("reserve", want.reserve), ("claims", want.claims), ("duration", want.duration)] {
            // A reserve is a difference of values a thousand times as large.
            let got = row[column].as_f64().unwrap();
            assert!((got - want).abs() < 1e-6 + 1e-9 * want.abs(), "{column} is {got} and not {want}: {row}");
        }
    }
}

fn check_sql(server: &Server, id: &str, values: &[Valued]) {
    for kind in ["term", "endowment"] {
        let of: Vec<Valued> = values.iter().filter(|v| v.policy.kind() == kind).copied().collect();
        let want = totals(&of);
        let rows = server.sql(&format!(
            "SELECT sum(reserve) AS sum, sum(reserve * reserve) AS squares, sum(claims * duration) / sum(claims) AS duration, count(*) AS n
             FROM grid.{id} WHERE kind = '{kind}'"
        ));
        assert_eq!(rows[0]["n"], of.len());
        close(&rows[0]["sum"], want.sum);
        close(&rows[0]["squares"], want.squares);
        close(&rows[0]["duration"], want.duration);
    }
    let rows = server.sql(&format!("SELECT policy FROM grid.{id} ORDER BY reserve DESC LIMIT 10"));
    let largest: Vec<u64> = rows.iter().map(|r| r["policy"].as_u64().unwrap()).collect();
    check_largest(&largest, values);
}

/// These are the policies with the largest reserves, the largest first. Two whose reserves differ by less than what the program's sums and
/// the formulas do may change places.
#[track_caller]
fn check_largest(got: &[u64], values: &[Valued]) {
    let want = totals(values).largest;
    let reserve = |number: &u64| values.iter().find(|v| v.policy.number == *number).map(|v| v.reserve);
    let distinct: BTreeSet<&u64> = got.iter().collect();
    assert_eq!((got.len(), distinct.len()), (want.len(), want.len()), "{got:?} and not {want:?}");
    for (got, want) in got.iter().zip(&want) {
        close(&json!(reserve(got)), reserve(want).unwrap());
    }
}

#[test]
fn a_program_of_files_projects_a_portfolio_and_sql_and_a_tree_add_it_up() {
    let test = "a_program_of_files_projects_a_portfolio_and_sql_and_a_tree_add_it_up";
    if no_python(test) {
        return;
    }
    let python = python_with("cloudpickle", &["cloudpickle==3.1.1"]);
    let variables = python.iter().map(|p| ("TIDEMILL_GRID_PYTHON".to_owned(), p.display().to_string())).collect();
    let server = Server::start(Options { workers: "1..1", slots: 2, variables, ..Options::default() });
    let portfolio = portfolio();
    let values: Vec<Valued> = portfolio.iter().flatten().map(|p| p.values()).collect();
    let tasks: Vec<Value> = portfolio.iter().map(|p| task(p)).collect();
    let id = project(&server, &tasks, &["--param", "out=values.csv"]);
    // One engine is killed, and with it the program that it has started.
    let engine = eventually("the engines have started", || engines(&server).pop());
    engine.signal(9);
    let ended = server.cli(&["grid", "watch", &id, "-o", "json"]).ok().json();
    assert_eq!((&ended["tasks"]["total"], &ended["tasks"]["succeeded"]), (&json!(60), &json!(60)), "{ended}");
    check_rows(&server, &id, &values);
    check_sql(&server, &id, &values);

    let python = match python {
        Ok(python) => python,
        Err(why) => return skipped(test, &format!("the tree of tasks: cloudpickle cannot be installed ({why})")),
    };
    let script = checkout().join("tests/it/tests/it/grid_programs/tree.py").display().to_string();
    let tree = server.python(&python, &[&script, &id]).run().ok().json();
    let want = totals(&values);
    assert_eq!((&tree["count"], &tree["parts"]), (&values.len().into(), &json!(true)), "{tree}");
    let largest: Vec<u64> = tree["largest"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    check_largest(&largest, &values);
    close(&tree["sum"], want.sum);
    close(&tree["squares"], want.squares);
    close(&tree["duration"], want.duration);
}

#[test]
fn all_files_of_a_program_are_its_result_and_what_it_says_is_its_error() {
    if no_python("all_files_of_a_program_are_its_result_and_what_it_says_is_its_error") {
        return;
    }
    let server = Server::start(Options::default());
    let policies: Vec<Policy> = (0..3).map(Policy::of).collect();
    let mut poisoned = task(&policies);
    poisoned["policies.csv"][1]["kind"] = json!("pension");
    let id = project(&server, &[task(&policies), poisoned, json!(7)], &[]);
    server.cli(&["grid", "watch", &id]).exits(1);
    let listed = server.cli(&["grid", "results", &id, "-o", "json"]).ok().json();
    let results: BTreeMap<u64, &Value> = listed["results"].as_array().unwrap().iter().map(|r| (r["task"].as_u64().unwrap(), r)).collect();
    let files = &results[&0]["value"];
    for (row, policy) in files["values.csv"].as_array().unwrap().iter().zip(&policies) {
        close(&row["reserve"], policy.values().reserve);
    }
    let years = policies.iter().map(|p| p.years).max().unwrap() as usize;
    assert_eq!(files["cashflows.csv"].as_array().unwrap().len(), years);
    close(&files["cashflows.csv"][0]["premiums"], policies.iter().map(|p| p.premium).sum());
    let error = &results[&1]["error"];
    assert_eq!(error["kind"], "exit", "{error}");
    assert!(error["message"].as_str().unwrap().contains("policy 1: kind is `pension`"), "{error}");
    assert!(results[&2]["error"]["message"].as_str().unwrap().contains("no JSON object of file names"), "{listed}");
    // Nothing is left of the tasks' folders.
    let scratch = fs::read_dir(server.data().join("scratch")).into_iter().flatten().flatten();
    let left: Vec<_> = scratch.flat_map(|w| fs::read_dir(w.path().join("program")).into_iter().flatten().flatten()).collect();
    assert!(left.iter().all(|f| !f.file_name().to_string_lossy().starts_with("task-")), "{left:?}");
}
