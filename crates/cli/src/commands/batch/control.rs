//! `tidemill batch retry|cancel|pause|resume|priority`.

use clap::Args;
use serde_json::{Value, json};
use tidemill_api::{DeadTask, RetryRequest};
use tidemill_base::{Error, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, note};

/// A job by its id.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The job's id.
    id: String,
}

/// Try failed tasks again: all, or those named.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The job's id.
    id: String,
    /// Tasks as STAGE/TASK, by number; a number alone is a task of the first stage.
    tasks: Vec<String>,
}

/// Set a job's priority.
#[derive(Debug, Args)]
pub(crate) struct Priority {
    /// The job's id.
    id: String,
    /// -1000 to 1000; higher goes first.
    #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    priority: i32,
}

/// A wish that was taken.
struct Done {
    id: String,
    what: &'static str,
    tasks: Option<u64>,
}

impl Named {
    pub(crate) async fn cancel(self, cx: &Context) -> Result<Exit> {
        cx.client()?.cancel(&self.id).await?;
        cx.show(&Done { id: self.id, what: "is being cancelled", tasks: None }).map(|()| Exit::Success)
    }

    pub(crate) async fn pause(self, cx: &Context) -> Result<Exit> {
        cx.client()?.pause(&self.id).await?;
        note(&format!(" next: `{}`", cx.command(&format!("batch resume {}", self.id))));
        cx.show(&Done { id: self.id, what: "is paused; what runs goes on", tasks: None }).map(|()| Exit::Success)
    }

    pub(crate) async fn resume(self, cx: &Context) -> Result<Exit> {
        cx.client()?.resume(&self.id).await?;
        cx.show(&Done { id: self.id, what: "goes on", tasks: None }).map(|()| Exit::Success)
    }
}

impl Retry {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let tasks = self.tasks.iter().map(|t| dead_task(t)).collect::<Result<Vec<_>>>()?;
        let request = RetryRequest { tasks: (!tasks.is_empty()).then_some(tasks) };
        let moved = cx.client()?.retry(&self.id, &request).await?.tasks;
        if moved > 0 {
            note(&format!(" next: `{}`", cx.command(&format!("batch watch {}", self.id))));
        }
        cx.show(&Done { id: self.id, what: "tries again", tasks: Some(moved) }).map(|()| Exit::Success)
    }
}

fn dead_task(text: &str) -> Result<DeadTask> {
    let (stage, task) = text.split_once('/').unwrap_or(("0", text));
    let wrong = |_| Error::invalid(format!("`{text}` is not a task; write STAGE/TASK in numbers, such as 0/17"));
    Ok(DeadTask { stage: stage.parse().map_err(wrong)?, task: task.parse().map_err(wrong)? })
}

impl Priority {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        cx.client()?.set_priority(&self.id, self.priority).await?;
        cx.show(&Done { id: self.id, what: "has its new priority", tasks: None }).map(|()| Exit::Success)
    }
}

impl View for Done {
    fn table(&self) -> String {
        let tasks = self.tasks.map(|n| format!(": {}", human::plural(n, "task"))).unwrap_or_default();
        format!("job {} {}{tasks}\n", self.id, self.what)
    }

    fn json(&self) -> Value {
        let mut json = json!({"id": self.id});
        if let Some(n) = self.tasks {
            json["tasks"] = json!(n);
        }
        json
    }

    fn quiet(&self) -> String {
        self.tasks.map(|n| n.to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_tasks_are_read() {
        let read = |text| dead_task(text).map(|t| (t.stage, t.task));
        assert_eq!(read("1/17").unwrap(), (1, 17));
        assert_eq!(read("17").unwrap(), (0, 17));
        assert!(read("a/b").unwrap_err().message().contains("`a/b`"));
    }

    #[test]
    fn what_was_done_is_said_in_each_form() {
        let done = Done { id: "j1".into(), what: "tries again", tasks: Some(2) };
        assert_eq!((done.table().as_str(), done.quiet().as_str()), ("job j1 tries again: 2 tasks\n", "2"));
        assert_eq!(done.json(), json!({"id": "j1", "tasks": 2}));
    }
}
