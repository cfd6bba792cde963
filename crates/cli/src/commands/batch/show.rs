//! `tidemill batch show`.

use clap::Args;
use serde_json::Value;
use tidemill_api::JobDetail;
use tidemill_base::{Result, Timestamp};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, fields, to_json};

/// Show a job.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The job's id.
    id: String,
}

pub(crate) struct Shown {
    pub(crate) job: JobDetail,
    pub(crate) now: Timestamp,
}

impl Show {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let job = cx.client()?.job(&self.id).await?;
        cx.show(&Shown { job, now: cx.env.now() }).map(|()| Exit::Success)
    }
}

impl View for Shown {
    fn table(&self) -> String {
        let j = &self.job;
        let at = |time: &Option<String>| time.as_ref().map(|t| format!("{t} ({})", human::ago(t, self.now))).unwrap_or_default();
        let labels: Vec<String> = j.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let pairs = [
            ("job", j.id.clone()),
            ("name", human::one_line(&j.name, 100)),
            ("state", j.state.clone()),
            ("reason", human::one_line(&j.reason, 200)),
            ("user", j.user.clone()),
            ("class", j.class.clone()),
            ("priority", j.priority.to_string()),
            ("labels", human::one_line(&labels.join(" "), 200)),
            ("after", j.after.join(" ")),
            ("cron", j.cron.clone().unwrap_or_default()),
            ("submitted", at(&Some(j.submitted_at.clone()))),
            ("started", at(&j.started_at)),
            ("finished", at(&j.finished_at)),
            ("took", human::between(j.started_at.as_deref(), j.finished_at.as_deref(), self.now).map(human::span).unwrap_or_default()),
            ("attempts", human::count(j.attempts)),
            ("cost", if j.cost > 0.0 { format!("{:.4}", j.cost) } else { String::new() }),
        ];
        format!("{}\n{}", fields(&pairs), self.stages())
    }

    fn json(&self) -> Value {
        to_json(&self.job)
    }

    fn quiet(&self) -> String {
        self.job.state.clone()
    }
}

impl Shown {
    fn stages(&self) -> String {
        let right = Align::Right;
        let columns = [
            ("STAGE", Align::Left),
            ("STATE", Align::Left),
            ("TASKS", right),
            ("OK", right),
            ("FAILED", right),
            ("RUNNING", right),
            ("WAITING", right),
            ("RETRYING", right),
            ("MEAN RUN", right),
            ("PEAK MEMORY", right),
            ("IN", right),
            ("OUT", right),
        ];
        let mut table = TextTable::new("no stages", &columns);
        for s in &self.job.stages {
            let t = &s.tasks;
            let mean = s.times.run_us.checked_div(s.attempts).map(human::micros).unwrap_or_default();
            table.row([
                human::one_line(&s.name, 40),
                s.state.clone(),
                human::count(t.total),
                human::count(t.succeeded),
                human::count(t.failed),
                human::count(t.running),
                human::count(t.waiting),
                human::count(t.retrying),
                mean,
                human::bytes(s.peak_memory),
                human::bytes(s.bytes_in),
                human::bytes(s.bytes_out),
            ]);
        }
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests_support::job;
    use tidemill_api::TaskCounts;

    #[test]
    fn json_has_the_words_that_scripts_rely_on() {
        let tasks = TaskCounts { total: 9, succeeded: 3, failed: 1, running: 2, waiting: 3, ..TaskCounts::default() };
        let shown = Shown { job: job("running", tasks), now: Timestamp::ZERO };
        let json = shown.json();
        assert_eq!(json["state"], "running");
        assert_eq!(json["attempts"], 4);
        for (word, n) in [("total", 9), ("succeeded", 3), ("failed", 1), ("running", 2), ("waiting", 3)] {
            assert_eq!(json["tasks"][word], n, "{word}");
        }
        assert_eq!(shown.quiet(), "running");
        assert!(shown.table().contains("took       10s"), "{}", shown.table());
    }
}
