//! The drivers alone: what the queue, the table and the objects do on this disk, and how long they take to open after a stop.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::floor;
use crate::mill::scratch;
use crate::recorder::{Recorder, Role, Row};

pub(crate) fn run(recorder: &mut Recorder) -> Result<()> {
    let folder = scratch()?;
    let floor = floor::syncs(folder.path())?;
    recorder.add(Row::new(Role::Floor, "200 bytes appended and synced, one by one", floor, "/s").note("one caller without group commit"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "--package", "tidemill-embedded", "--example", "drivers_bench", "--"]);
    let output = command.arg(folder.path().join("drivers")).output().context("cargo run --example drivers_bench")?;
    ensure!(output.status.success(), "drivers_bench failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Row> = text.lines().flat_map(rows).collect();
    ensure!(!rows.is_empty(), "drivers_bench printed nothing that is understood:\n{text}");
    rows.into_iter().for_each(|row| recorder.add(row));
    Ok(())
}

/// The numbers of a line that the example prints.
fn rows(line: &str) -> Vec<Row> {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((what, numbers)) = line.split_once(": ") else { return sentence(&line).into_iter().collect() };
    if let Some((resident, before)) = numbers.split_once(" MiB resident, ") {
        let row = resident.parse().ok().map(|mib| Row::new(Role::Ours, &format!("{what}: memory of the process"), mib, "MiB").note(before));
        return row.into_iter().collect();
    }
    let parts = numbers.split(", ").filter_map(|part| {
        let (number, unit) = part.split_whitespace().find_map(rate)?;
        let verb = part.split(&number).next().unwrap_or("").trim();
        let note = part.split_once('(').map_or("", |(_, rest)| rest.split(')').next().unwrap_or(""));
        Some(Row::new(Role::Ours, format!("{what}: {verb}").trim_end_matches([' ', ':']), number.parse().ok()?, unit).note(note))
    });
    parts.collect()
}

/// `123/s` or `123 writes/s`, as the number and its unit.
fn rate(word: &str) -> Option<(String, &'static str)> {
    let number = word.trim_end_matches("/s");
    number.parse::<f64>().is_ok().then(|| (number.to_owned(), "/s"))
}

/// A line without numbers in a fixed place: the first time or rate in it.
fn sentence(line: &str) -> Option<Row> {
    let word = |w: &str| {
        let w = w.trim_end_matches(',');
        let units = [("ms", 1.0), ("µs", 1e-3), ("s", 1e3)];
        units.iter().find_map(|(unit, ms)| w.strip_suffix(unit)?.parse::<f64>().ok().map(|n| n * ms))
    };
    if let Some((rest, rate)) = line.rsplit_once(" at ").and_then(|(rest, r)| Some((rest, r.split("/s").next()?.parse::<f64>().ok()?))) {
        return Some(Row::new(Role::Ours, rest, rate, "/s").note(line));
    }
    let ms = line.split(' ').find_map(word)?;
    let what = line.split(" in ").next().unwrap_or(line);
    Some(Row::new(Role::Ours, what, ms, "ms").note(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Vec<String> {
        rows(line).into_iter().map(|r| format!("{r:?}")).collect()
    }

    #[test]
    fn the_lines_of_the_example_are_understood() {
        let queue = read("queue    1 callers, batch  10: send     1234/s (56 syncs), receive and ack      789/s  (made in 3ms)");
        assert_eq!(queue.len(), 2, "{queue:?}");
        assert!(
            queue[0].contains("queue 1 callers, batch 10: send") && queue[0].contains("1234") && queue[0].contains("56 syncs"),
            "{queue:?}"
        );
        assert!(queue[1].contains("receive and ack") && queue[1].contains("789"));
        assert!(read("table   16 callers,   1 writes a transaction:     4321 writes/s")[0].contains("4321"));
        let memory = read("1,000,000 messages waiting: 236 MiB resident, 221 before");
        assert!(
            memory.len() == 1 && memory[0].contains("MiB") && memory[0].contains("236") && memory[0].contains("221 before"),
            "{memory:?}"
        );
        assert!(read("reopened with 1,000,000 messages in 250ms")[0].contains("250"));
        assert!(read("drained 900000 at 123456/s, batch 1000")[0].contains("123456"));
        assert_eq!(read("nothing here").len(), 0);
    }
}
