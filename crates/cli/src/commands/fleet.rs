//! `tidemill fleet`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidemill_api::{GroupList, WorkerList};
use tidemill_base::{Error, HumanDuration, Result, Timestamp};
use tidemill_batch::fleet::{Load, Outcome, ScalePolicy, SimSettings, chart, simulate};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, fields, note, to_json};

/// Workers and groups of workers.
#[derive(Debug, Subcommand)]
pub(crate) enum Fleet {
    /// List workers and groups.
    List,
    /// Let a worker finish what it has and go.
    Drain(Drain),
    /// Try a scaling policy against a load, on this machine and without a server.
    Simulate(Box<Simulate>),
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The worker's id, as listed.
    id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// steady, burst, working-day, month-end, or a CSV file of `seconds,tasks,seconds_per_task`.
    #[arg(long, default_value = "burst")]
    load: String,
    /// Never fewer workers.
    #[arg(long, default_value_t = 0)]
    min: u32,
    /// Never more workers.
    #[arg(long, default_value_t = 10)]
    max: u32,
    /// The backlog should be worked off within this.
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    target: HumanDuration,
    /// After growing, not grown again within this.
    #[arg(long, default_value = "3s", value_name = "DURATION")]
    grow_cooldown: HumanDuration,
    /// Shrunk only when the need has been lower for so long.
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    shrink_cooldown: HumanDuration,
    /// Slots of one worker.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    slots: u32,
    /// From asking for a worker to its first task.
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    boot: HumanDuration,
    /// Price of a worker for an hour, in your currency.
    #[arg(long, default_value_t = 0.20)]
    price: f64,
}

struct Listed {
    workers: WorkerList,
    groups: GroupList,
    now: Timestamp,
}

struct Simulated {
    load: String,
    outcome: Outcome,
}

impl Fleet {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        match self {
            Self::List => {
                let client = cx.client()?;
                let (workers, groups) = (client.workers().await?, client.groups().await?);
                cx.show(&Listed { workers, groups, now: cx.env.now() })?;
            }
            Self::Drain(c) => {
                cx.client()?.drain_worker(&c.id).await?;
                note(&format!("worker {} goes when its tasks are done", c.id));
            }
            Self::Simulate(c) => cx.show(&c.simulate()?)?,
        }
        Ok(Exit::Success)
    }
}

impl Simulate {
    fn simulate(self) -> Result<Simulated> {
        if self.min > self.max || self.max == 0 {
            return Err(Error::invalid(format!("--min {} and --max {} leave no fleet; give a maximum of at least 1", self.min, self.max)));
        }
        let load = if Load::NAMES.contains(&self.load.as_str()) || !std::path::Path::new(&self.load).exists() {
            Load::named(&self.load)?
        } else {
            let text = std::fs::read_to_string(&self.load).map_err(|e| Error::from(e).context(format!("read {}", self.load)))?;
            Load::from_csv(&text).map_err(|e| e.context(&self.load))?
        };
        let policy = ScalePolicy {
            min: self.min,
            max: self.max,
            target: self.target,
            grow_cooldown: self.grow_cooldown,
            shrink_cooldown: self.shrink_cooldown,
        };
        let settings = SimSettings { slots_each: self.slots, boot: self.boot.0, price_per_hour: self.price };
        Ok(Simulated { load: self.load, outcome: simulate(&policy, &load, &settings) })
    }
}

impl View for Listed {
    fn table(&self) -> String {
        let columns = [
            ("WORKER", Align::Left),
            ("CLASS", Align::Left),
            ("HOST", Align::Left),
            ("STATE", Align::Left),
            ("SLOTS", Align::Right),
            ("RUNNING", Align::Right),
            ("DONE", Align::Right),
            ("MEMORY", Align::Right),
            ("HEARD", Align::Right),
        ];
        let mut workers = TextTable::new("no workers", &columns);
        for w in &self.workers.workers {
            workers.row([
                w.id.clone(),
                w.class.clone(),
                w.host.clone(),
                w.state.clone(),
                w.slots.to_string(),
                w.running.len().to_string(),
                human::count(w.tasks_done),
                human::bytes(w.memory),
                human::ago(&w.heard_at, self.now),
            ]);
        }
        let columns = [
            ("GROUP", Align::Left),
            ("MIN", Align::Right),
            ("MAX", Align::Right),
            ("DESIRED", Align::Right),
            ("MEMBERS", Align::Right),
            ("WHY", Align::Left),
        ];
        let mut groups = TextTable::new("no groups", &columns);
        for g in &self.groups.groups {
            groups.row([
                g.name.clone(),
                g.min.to_string(),
                g.max.to_string(),
                g.desired.to_string(),
                g.members.to_string(),
                g.reason.clone(),
            ]);
        }
        format!("{}\n{}", workers.render(), groups.render())
    }

    fn json(&self) -> Value {
        json!({"workers": to_json(&self.workers.workers), "groups": to_json(&self.groups.groups)})
    }

    fn quiet(&self) -> String {
        self.workers.workers.iter().map(|w| w.id.clone()).collect::<Vec<_>>().join("\n")
    }
}

impl View for Simulated {
    fn table(&self) -> String {
        let o = &self.outcome;
        let pairs = [
            ("load", self.load.clone()),
            ("completion", human::left(o.completion_s)),
            ("worst turnaround", human::left(o.worst_turnaround_s)),
            ("worker hours", format!("{:.2}", o.worker_hours)),
            ("utilisation", format!("{:.0} %", o.utilisation * 100.0)),
            ("cost", format!("{:.2}", o.cost)),
            ("most workers", o.peak_workers.to_string()),
            ("unfinished", if o.finished { String::new() } else { "yes: the load was not done within a year".to_owned() }),
        ];
        format!("{}\n{}", fields(&pairs), chart(&o.points, 72))
    }

    fn json(&self) -> Value {
        let o = &self.outcome;
        let points: Vec<Value> = o.points.iter().map(|p| json!({"at_s": p.at_s, "workers": p.workers, "tasks": p.tasks})).collect();
        json!({
            "load": self.load, "completion_s": o.completion_s, "worst_turnaround_s": o.worst_turnaround_s, "worker_hours": o.worker_hours,
            "utilisation": o.utilisation, "cost": o.cost, "peak_workers": o.peak_workers, "finished": o.finished, "points": points,
        })
    }

    fn quiet(&self) -> String {
        format!("{:.0} {:.2} {:.2}", self.outcome.completion_s, self.outcome.worker_hours, self.outcome.cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        simulate: Simulate,
    }

    fn run(line: &str) -> Result<Simulated> {
        Only::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace())).unwrap().simulate.simulate()
    }

    #[test]
    fn more_workers_finish_a_burst_sooner() {
        let (small, large) = (run("--load burst --max 2").unwrap(), run("--load burst --max 50").unwrap());
        assert!(large.outcome.completion_s < small.outcome.completion_s / 4.0);
        assert!(large.table().contains("worker hours") && large.table().contains("workers |"), "{}", large.table());
        assert_eq!(large.json()["finished"], true);
    }

    #[test]
    fn what_cannot_be_simulated_is_named() {
        assert!(run("--load nothing").err().unwrap().message().contains("`nothing`"));
        assert!(run("--min 5 --max 2").err().unwrap().message().contains("--min 5"));
    }
}
