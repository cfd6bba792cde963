//! `tidemill batch tasks`.

use clap::{Args, ValueEnum};
use serde_json::Value;
use tidemill_api::TaskList;
use tidemill_base::Result;
use tidemill_client::TaskFilter;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, note, to_json};

/// List a job's attempts.
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// The job's id.
    id: String,
    /// Which ones.
    #[arg(long, value_enum, default_value_t = State::All)]
    state: State,
    /// Of this stage only: its number, from 0.
    #[arg(long, value_name = "N")]
    stage: Option<u32>,
    /// No more than this.
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u32,
    /// From here on: what the page before named.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Running,
    Failed,
    Retrying,
    Succeeded,
    All,
}

struct Attempts(TaskList);

impl Tasks {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let state = self.state.to_possible_value().map(|v| v.get_name().to_owned());
        let filter = TaskFilter { stage: self.stage, state, after: self.after, limit: Some(self.limit) };
        let list = cx.client()?.tasks(&self.id, &filter).await?;
        let next = list.next.clone();
        cx.show(&Attempts(list))?;
        if let Some(next) = next {
            note(&format!("there are more: --after {next}"));
        }
        Ok(Exit::Success)
    }
}

impl View for Attempts {
    fn table(&self) -> String {
        let columns = [
            ("STAGE", Align::Right),
            ("TASK", Align::Right),
            ("TRY", Align::Right),
            ("STATE", Align::Left),
            ("WAIT", Align::Right),
            ("RUN", Align::Right),
            ("MEMORY", Align::Right),
            ("WORKER", Align::Left),
            ("WHY", Align::Left),
        ];
        let mut table = TextTable::new("no such tasks", &columns);
        for t in &self.0.tasks {
            let message = t.message.as_deref().map(|m| human::one_line(m, 80)).filter(|m| !m.is_empty());
            let exit = t.exit.filter(|code| *code != 0).map(|code| format!("exit code {code}"));
            let why = [t.class.clone(), message.or(exit)].into_iter().flatten().collect::<Vec<_>>().join(": ");
            table.row([
                t.stage.to_string(),
                t.task.to_string(),
                t.attempt.to_string(),
                t.state.clone(),
                human::micros(t.wait_us),
                human::micros(t.run_us),
                human::bytes(t.peak_memory),
                t.worker.clone(),
                why,
            ]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.tasks.iter().map(|t| format!("{}/{}", t.stage, t.task)).collect::<Vec<_>>().join("\n")
    }
}
