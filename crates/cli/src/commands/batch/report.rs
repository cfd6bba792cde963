//! `tidemill batch report`.

use clap::Args;
use serde_json::Value;
use tidemill_api::{JobReport, Percentiles};
use tidemill_base::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, fields, to_json};

/// Times, waste and cost of a job.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The job's id.
    id: String,
}

struct Reported(JobReport);

impl Report {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let report = cx.client()?.report(&self.id).await?;
        cx.show(&Reported(report)).map(|()| Exit::Success)
    }
}

fn times(p: &Percentiles) -> String {
    [p.p50, p.p90, p.p99, p.max].map(|us| human::micros(us.max(0.0) as u64)).join(" ")
}

impl Reported {
    fn stages(&self) -> String {
        let columns = [
            ("STAGE", Align::Left),
            ("TASKS", Align::Right),
            ("ATTEMPTS", Align::Right),
            ("RATE", Align::Right),
            ("RUN p50 p90 p99 max", Align::Right),
            ("WAIT p50 p90 p99 max", Align::Right),
            ("MEMORY max", Align::Right),
            ("CPU", Align::Right),
        ];
        let mut table = TextTable::new("no stages", &columns);
        for s in &self.0.stages {
            table.row([
                human::one_line(&s.name, 40),
                human::count(s.tasks.total),
                human::count(s.attempts),
                human::rate(s.rate),
                times(&s.run_us),
                times(&s.wait_us),
                human::bytes(s.peak_memory.max.max(0.0) as u64),
                format!("{:.0} %", s.cpu_efficiency * 100.0),
            ]);
        }
        table.render()
    }

    fn slowest(&self) -> String {
        let columns = [("SLOWEST", Align::Left), ("TRY", Align::Right), ("RUN", Align::Right), ("WORKER", Align::Left)];
        let mut table = TextTable::new("no attempts", &columns);
        for t in &self.0.slowest {
            table.row([format!("{}/{}", t.stage, t.task), t.attempt.to_string(), human::micros(t.run_us), t.worker.clone()]);
        }
        table.render()
    }

    fn waste(&self) -> String {
        let mut table =
            TextTable::new("nothing wasted", &[("WASTE", Align::Left), ("ATTEMPTS", Align::Right), ("SLOT TIME", Align::Right)]);
        for w in &self.0.waste {
            table.row([w.cause.clone(), human::count(w.attempts), human::micros(w.slot_us)]);
        }
        table.render()
    }
}

impl View for Reported {
    fn table(&self) -> String {
        let (job, cost) = (&self.0.job, &self.0.cost);
        let pairs = [
            ("job", format!("{} ({})", job.id, human::one_line(&job.name, 60))),
            ("state", job.state.clone()),
            ("slot hours", format!("{:.4}", cost.slot_hours)),
            ("cost", if cost.price_per_slot_hour > 0.0 { format!("{:.4} ({:.4} wasted)", cost.total, cost.wasted) } else { String::new() }),
        ];
        [fields(&pairs), self.stages(), self.slowest(), self.waste()].join("\n")
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        format!("{:.4} {:.4}", self.0.cost.slot_hours, self.0.cost.total)
    }
}
