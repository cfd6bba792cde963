//! What Tidemill does on this machine, beside the floor and beside its peers, in one run.
//!
//! Why a program: a claim about speed is a ratio of two numbers measured minutes apart on the same machine, and a table that people
//! copy by hand goes stale. Every bench writes its rows to `benches/results/DATE.jsonl` with the machine, the commit and the versions,
//! and `benches/RESULTS.md` is made anew from the newest run of each.
//!
//! ```console
//! $ cargo xtask bench                       # everything, peers included: about half an hour
//! $ cargo xtask bench processes latency     # two of them
//! $ cargo xtask bench --quick               # a tenth of the work, to see that it runs
//! ```

mod drivers;
mod engines;
mod facts;
mod floor;
mod grid;
mod kills;
mod latency;
mod memory;
mod mill;
mod million;
mod peers;
mod processes;
mod recorder;
mod render;
mod tour;
mod verify;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::recorder::Recorder;

const BENCHES: [&str; 11] =
    ["processes", "million", "latency", "drivers", "engines", "kills", "grid-calls", "grid-trips", "grid-risk", "grid-products", "tour"];

const USAGE: &str = "\
usage: cargo xtask bench [--quick] [--seed N] [BENCH...]

  processes   10,000 /bin/true on two slots: floor, peers, tidemill
  million     1,000,000 no-op tasks through the whole path; memory; an array of 10 million
  latency     from submit to the first task started
  drivers     the queue, the table and the objects alone
  engines     no-op tasks on PostgreSQL beside the embedded drivers; requests to AWS and their price
  kills       kill -9 of manager and workers; nothing lost, nothing counted twice
  grid        the grid beside Python's executors, Ray, Dask and Celery, or one of its parts:
              grid-calls     calls that do nothing, a million of them, collecting results
              grid-trips     one call at a time
              grid-risk      an overnight revaluation with QuantLib-Python
              grid-products  the pricing library against QuantLib-Python
  tour        the claims job of the tour
  render      only write RESULTS.md anew

TIDEMILL_BIN names the program, TIDEMILL_BENCH_DIR a folder on the disk to be measured.
";

/// What was asked for.
struct Asked {
    benches: Vec<String>,
    quick: bool,
    seed: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.split_first() {
        Some((first, rest)) if first == "floor" => floor::main(rest),
        _ => run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn asked(args: &[String]) -> Result<Asked> {
    let mut asked = Asked { benches: Vec::new(), quick: false, seed: 1 };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => asked.quick = true,
            "--seed" => match args.next().and_then(|n| n.parse().ok()) {
                Some(seed) => asked.seed = seed,
                None => bail!("--seed takes a whole number\n\n{USAGE}"),
            },
            "grid" => asked.benches.extend(grid::BENCHES.map(str::to_owned)),
            name if BENCHES.contains(&name) || name == "render" => asked.benches.push(name.to_owned()),
            other => bail!("there is no bench `{other}`\n\n{USAGE}"),
        }
    }
    if asked.benches.is_empty() {
        asked.benches = BENCHES.map(str::to_owned).to_vec();
    }
    Ok(asked)
}

fn run(args: &[String]) -> Result<()> {
    let asked = asked(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut failed = Vec::new();
    for name in &asked.benches {
        if name != "render" {
            eprintln!("== {name}");
            let mut recorder = Recorder::new(name, asked.quick)?;
            // A bench that fails must not cost the others' numbers.
            match runtime.block_on(bench(name, &asked, &mut recorder)) {
                Ok(()) => recorder.save()?,
                Err(e) => {
                    eprintln!("{name}: {e:#}");
                    failed.push(name.as_str());
                }
            }
        }
        render::write()?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("these did not run to their end: {}", failed.join(", ")) }
}

async fn bench(name: &str, asked: &Asked, recorder: &mut Recorder) -> Result<()> {
    let share = if asked.quick { 10 } else { 1 };
    match name {
        "processes" => processes::run(recorder, 10_000 / share).await,
        "million" => million::run(recorder, 1_000_000 / share).await,
        "latency" => latency::run(recorder, 200 / usize::try_from(share)?).await,
        "drivers" => drivers::run(recorder),
        "engines" => engines::run(recorder, 1_000_000 / share).await,
        "kills" => kills::run(recorder, u32::try_from(200 / share)?, asked.seed).await,
        name if grid::BENCHES.contains(&name) => grid::run(name, recorder, share).await,
        _ => tour::run(recorder).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_unknown_ones_named() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let a = asked(&words("--quick kills --seed 7")).unwrap();
        assert_eq!((a.benches, a.quick, a.seed), (vec!["kills".to_owned()], true, 7));
        assert_eq!(asked(&[]).unwrap().benches.len(), BENCHES.len());
        assert_eq!(asked(&words("grid")).unwrap().benches, grid::BENCHES);
        assert!(asked(&words("speed")).err().unwrap().to_string().contains("`speed`"));
        assert!(asked(&words("--seed x")).is_err());
    }
}
