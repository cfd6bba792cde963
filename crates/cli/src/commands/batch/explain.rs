//! `tidemill batch explain`.

use clap::Args;
use serde_json::Value;
use tidemill_api::Explanation;
use tidemill_base::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{View, to_json};

/// Why a job or a task is as it is, and what would change that.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The job's id.
    id: String,
    /// One of its tasks.
    #[arg(long, value_name = "N")]
    task: Option<u64>,
    /// The task's stage, from 0.
    #[arg(long, value_name = "N")]
    stage: Option<u32>,
}

/// An explanation, as it is shown.
pub(in super::super) struct Explained(pub(in super::super) Explanation);

impl Explain {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let stage = self.stage.or_else(|| self.task.map(|_| 0));
        let explanation = cx.client()?.explain(&self.id, stage, self.task).await?;
        cx.show(&Explained(explanation)).map(|()| Exit::Success)
    }
}

impl View for Explained {
    fn table(&self) -> String {
        let mut out = format!("{}: {}\n", self.0.subject, self.0.state);
        self.0.because.iter().for_each(|line| out.push_str(&format!("  because {line}\n")));
        self.0.next.iter().for_each(|line| out.push_str(&format!("  next: {line}\n")));
        out
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.because.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_reads_as_sentences() {
        let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let shown = Explained(Explanation {
            subject: "job j1".into(),
            state: "waiting".into(),
            because: text(&["no worker of class `gpu` is ready"]),
            next: text(&["start one"]),
        });
        assert_eq!(shown.table(), "job j1: waiting\n  because no worker of class `gpu` is ready\n  next: start one\n");
    }
}
