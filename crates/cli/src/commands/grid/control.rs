//! `tidemill grid close|pause|resume|retry|priority`.

use clap::Args;
use serde_json::{Value, json};
use tidemill_api::{DeadTask, RetryRequest};
use tidemill_base::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, note};

/// A session by its id.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The session's id.
    id: String,
}

/// Try failed tasks again: all, or those named.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The session's id.
    id: String,
    /// Tasks by their numbers.
    tasks: Vec<u64>,
}

/// Set a session's priority.
#[derive(Debug, Args)]
pub(crate) struct Priority {
    /// The session's id.
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

fn done(cx: &Context, id: String, what: &'static str) -> Result<Exit> {
    cx.show(&Done { id, what, tasks: None }).map(|()| Exit::Success)
}

impl Named {
    pub(crate) async fn close(self, cx: &Context) -> Result<Exit> {
        cx.client()?.close_session(&self.id).await?;
        done(cx, self.id, "is closed and ends with its last task")
    }

    pub(crate) async fn pause(self, cx: &Context) -> Result<Exit> {
        cx.client()?.pause_session(&self.id).await?;
        note(&format!(" next: `{}`", cx.command(&format!("grid resume {}", self.id))));
        done(cx, self.id, "is paused; what runs goes on")
    }

    pub(crate) async fn resume(self, cx: &Context) -> Result<Exit> {
        cx.client()?.resume_session(&self.id).await?;
        done(cx, self.id, "goes on")
    }
}

impl Retry {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let tasks: Vec<DeadTask> = self.tasks.iter().map(|task| DeadTask { stage: 0, task: *task }).collect();
        let request = RetryRequest { tasks: (!tasks.is_empty()).then_some(tasks) };
        let moved = cx.client()?.retry_session(&self.id, &request).await?.tasks;
        if moved > 0 {
            note(&format!(" next: `{}`", cx.command(&format!("grid watch {}", self.id))));
        }
        cx.show(&Done { id: self.id, what: "tries again", tasks: Some(moved) }).map(|()| Exit::Success)
    }
}

impl Priority {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        cx.client()?.set_session_priority(&self.id, self.priority).await?;
        done(cx, self.id, "has its new priority")
    }
}

impl View for Done {
    fn table(&self) -> String {
        let tasks = self.tasks.map(|n| format!(": {}", human::plural(n, "task"))).unwrap_or_default();
        format!("session {} {}{tasks}\n", self.id, self.what)
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
    fn what_was_done_is_said_in_each_form() {
        let done = Done { id: "s1".into(), what: "tries again", tasks: Some(2) };
        assert_eq!((done.table().as_str(), done.quiet().as_str()), ("session s1 tries again: 2 tasks\n", "2"));
        assert_eq!(done.json(), json!({"id": "s1", "tasks": 2}));
    }
}
