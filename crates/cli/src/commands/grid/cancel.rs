//! `tidemill grid cancel`.

use clap::Args;
use serde_json::{Value, json};
use tidemill_api::{CancelTasksRequest, CancelTasksResponse, TaskRange};
use tidemill_base::{Error, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::View;

/// End a session, running tasks included; or give up some of its tasks.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill grid cancel j1m8034gkhk1hgzn\n  tidemill grid cancel j1m8034gkhk1hgzn --tasks 100-199,7 --running"
)]
pub(crate) struct Cancel {
    /// The session's id.
    id: String,
    /// Only these tasks, by their numbers: 100-199,7. Those that run go on, unless `--running` says otherwise.
    #[arg(long, value_name = "TASKS", value_parser = tasks)]
    tasks: Option<Tasks>,
    /// Stop those of them that run as well.
    #[arg(long, requires = "tasks")]
    running: bool,
}

/// Tasks by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tasks(Vec<TaskRange>);

fn tasks(text: &str) -> Result<Tasks> {
    let bad = |part: &str| {
        let part = part.escape_debug();
        Error::invalid(format!("`{part}` is no task, and no range of tasks; write them like `100-199,7`"))
    };
    let one = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |t: &str| t.trim().parse::<u64>().map_err(|_| bad(part));
        let (first, last) = (number(first)?, number(last)?);
        let count = last.checked_sub(first).and_then(|n| n.checked_add(1)).ok_or_else(|| bad(part))?;
        Ok(TaskRange { first, count })
    };
    text.split(',').map(one).collect::<Result<_>>().map(Tasks)
}

struct Done {
    id: String,
    tasks: Option<CancelTasksResponse>,
}

impl Cancel {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        let done = match self.tasks {
            None => {
                client.cancel_session(&self.id).await?;
                None
            }
            Some(Tasks(tasks)) => Some(client.cancel_tasks(&self.id, &CancelTasksRequest { tasks, running: self.running }).await?),
        };
        cx.show(&Done { id: self.id, tasks: done }).map(|()| Exit::Success)
    }
}

impl View for Done {
    fn table(&self) -> String {
        let Some(t) = &self.tasks else { return format!("session {} is being cancelled\n", self.id) };
        let parts = [
            (t.cancelled, if t.cancelled == 1 { "is cancelled" } else { "are cancelled" }),
            (
                t.asked,
                if t.asked == 1 {
                    "is with a worker, which goes on if it has begun"
                } else {
                    "are with workers, which go on if they have begun"
                },
            ),
            (t.ended, "had ended before"),
        ];
        let said: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", human::plural(*n, "task"))).collect();
        format!("session {}: {}\n", self.id, said.join("; "))
    }

    fn json(&self) -> Value {
        let mut json = json!({"id": self.id});
        if let Some(t) = &self.tasks {
            json["tasks"] = json!(t);
        }
        json
    }

    fn quiet(&self) -> String {
        self.tasks.map(|t| t.cancelled.to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_named_by_numbers_and_ranges() {
        let range = |first, count| TaskRange { first, count };
        assert_eq!(tasks("100-199, 7").unwrap(), Tasks(vec![range(100, 100), range(7, 1)]));
        for wrong in ["", "a", "5-3", "1-", "1,,2"] {
            assert!(tasks(wrong).unwrap_err().message().contains("100-199,7"), "{wrong}");
        }
    }

    #[test]
    fn what_was_done_is_said_in_each_form() {
        let tasks = CancelTasksResponse { cancelled: 4, asked: 1, ended: 0 };
        let done = Done { id: "s1".into(), tasks: Some(tasks) };
        let text = "session s1: 4 tasks are cancelled; 1 task is with a worker, which goes on if it has begun\n";
        assert_eq!((done.table().as_str(), done.quiet().as_str()), (text, "4"));
        assert_eq!(done.json(), json!({"id": "s1", "tasks": {"cancelled": 4, "asked": 1, "ended": 0}}));
        assert_eq!(Done { id: "s1".into(), tasks: None }.table(), "session s1 is being cancelled\n");
    }
}
