//! An overnight revaluation: 1,000 trades under 501 scenarios with QuantLib-Python, cut into blocks by hand or one task for each
//! valuation, and by the bundled engine. How much of the two cores goes into values is what counts.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::python::{Answer, Python};
use super::turn;
use crate::recorder::{Goal, Recorder, Role, Row, number};

const BLOCKS: u64 = 2_550;
const VALUES: u64 = 501_000;
/// So often each system has its turn.
const TURNS: usize = 3;
const LEAST_BLOCKS: f64 = 0.98;
const LEAST_VALUES: f64 = 0.90;
const MOST_BUNDLED_S: f64 = 3.0;
const UNIT: &str = "of two cores";

pub(crate) async fn run(recorder: &mut Recorder, share: u64) -> Result<()> {
    let python = Python::find()?;
    let mill = turn::mill(&python).await?;
    blocks(recorder, &python, &mill, BLOCKS / share).await?;
    values(recorder, &python, &mill, VALUES / share).await?;
    let (answer, _) = turn::run(&mill, &python, "risk.py", &["tidemill", "bundled", "0"]).await?;
    let note = format!("from the opening of the session to the last value; measures within {:.0e} of QuantLib's", answer.number("off")?);
    let row = Row::new(Role::Ours, "tidemill, the bundled engine, the whole run", answer.number("seconds")?, "s");
    recorder.add(row.goal(Goal::Most(MOST_BUNDLED_S)).note(&note).group("bundled"));
    Ok(())
}

async fn blocks(recorder: &mut Recorder, python: &Python, mill: &crate::mill::Mill, count: u64) -> Result<()> {
    let turns = Turns::take(python, mill, "blocks", count, &["plain", "halves", "pool"]).await?;
    let name = format!("{} blocks", number(count as f64));
    let cpu = turns.floors(recorder, &name)?;
    recorder.add(turns.efficiency(Role::Peer, "pool", &format!("{name}: ProcessPoolExecutor"), cpu)?.group(&name));
    for (what, system) in [("Ray", "ray"), ("Dask distributed", "dask")] {
        match python.run("risk.py", &[system, "blocks", &count.to_string()], None) {
            Ok(answer) => {
                recorder.add(efficiency(Role::Peer, &format!("{name}: {what}"), cpu, answer.number("seconds")?, &answer).group(&name));
            }
            Err(e) => recorder.add(Row::absent(&format!("{name}: {what}"), &format!("could not be measured: {e:#}"))),
        }
    }
    let row = turns.efficiency(Role::Ours, "tidemill", &format!("{name}: tidemill"), cpu)?;
    recorder.add(row.goal(Goal::Least(LEAST_BLOCKS)).group(&name));
    Ok(())
}

async fn values(recorder: &mut Recorder, python: &Python, mill: &crate::mill::Mill, count: u64) -> Result<()> {
    let turns = Turns::take(python, mill, "values", count, &["plain", "halves"]).await?;
    let name = format!("{} valuations", number(count as f64));
    let cpu = turns.floors(recorder, &name)?;
    let row = turns.efficiency(Role::Ours, "tidemill", &format!("{name}, one task each: tidemill"), cpu)?;
    recorder.add(row.goal(Goal::Least(LEAST_VALUES)).group(&name));
    Ok(())
}

/// What systems answered that did the same in turn. Medians of them are compared: a virtual machine's cores are not equally fast from
/// one minute to the next.
struct Turns(BTreeMap<&'static str, Vec<Answer>>);

impl Turns {
    async fn take(python: &Python, mill: &crate::mill::Mill, kind: &str, count: u64, others: &[&'static str]) -> Result<Self> {
        let (n, mut answers) = (count.to_string(), BTreeMap::<_, Vec<_>>::new());
        for _ in 0..TURNS {
            let (answer, spent) = turn::run(mill, python, "risk.py", &["tidemill", kind, &n]).await?;
            turn::settled(mill, &answer).await?;
            eprintln!("  {:.1} s; {}", answer.number("seconds")?, spent.a_task(count as f64));
            answers.entry("tidemill").or_default().push(answer);
            for system in others {
                answers.entry(system).or_default().push(python.run("risk.py", &[system, kind, &n], None)?);
            }
        }
        Ok(Self(answers))
    }

    fn of(&self, system: &str) -> Result<&[Answer]> {
        self.0.get(system).map(Vec::as_slice).with_context(|| format!("`{system}` had no turn"))
    }

    fn median(&self, system: &str, what: &str) -> Result<f64> {
        let mut all = self.of(system)?.iter().map(|a| a.number(what)).collect::<Result<Vec<f64>>>()?;
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().context("nothing was measured")
    }

    /// What the values cost with nothing around them, in CPU seconds, which other load on the machine does not stretch; and what two
    /// processes get out of the machine together, which is less than twice what one gets alone.
    fn floors(&self, recorder: &mut Recorder, name: &str) -> Result<f64> {
        let cpu = self.median("plain", "cpu_seconds")?;
        let note = format!("median of {TURNS}; {}", self.of("plain")?[0].text("note"));
        recorder.add(Row::new(Role::Floor, &format!("{name}: pure compute in one process"), cpu, "CPU s").note(&note).group(name));
        recorder.add(self.efficiency(Role::Floor, "halves", &format!("{name}: pure compute in two processes"), cpu)?.group(name));
        Ok(cpu)
    }

    fn efficiency(&self, role: Role, system: &str, what: &str, pure: f64) -> Result<Row> {
        Ok(efficiency(role, what, pure, self.median(system, "seconds")?, &self.of(system)?[0]))
    }
}

/// Pure compute over twice the wall time.
fn efficiency(role: Role, what: &str, pure: f64, wall: f64, answer: &Answer) -> Row {
    Row::new(role, what, pure / 2.0 / wall, UNIT).note(&format!("{wall:.1} s; {}", answer.text("note")))
}
