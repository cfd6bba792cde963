//! `tidemill queue`.

use clap::{Args, Subcommand};
use serde_json::Value;
use tidemill_api::{DeadLetterList, QueueList, RedriveRequest};
use tidemill_base::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, note, to_json};

/// Queues and dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Queue {
    /// List the queues with their counts.
    List,
    /// Read the dead letters of a queue.
    Dead(Dead),
    /// Send dead letters back to the queue they died in.
    Redrive(Redrive),
}

#[derive(Debug, Args)]
pub(crate) struct Dead {
    /// The queue that dead letters go to, as `queue list` names it.
    #[arg(default_value = "batch.dead")]
    queue: String,
    /// No more than this.
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Redrive {
    /// The queue that dead letters go to.
    queue: String,
    /// These messages; all if left out.
    ids: Vec<String>,
}

struct Queues(QueueList);
struct DeadLetters(DeadLetterList);

impl Queue {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        match self {
            Self::List => cx.show(&Queues(client.queues().await?))?,
            Self::Dead(c) => cx.show(&DeadLetters(client.dead_letters(&c.queue, c.limit).await?))?,
            Self::Redrive(c) => {
                let ids = (!c.ids.is_empty()).then_some(c.ids);
                let moved = client.redrive(&c.queue, &RedriveRequest { ids }).await?.moved;
                note(&format!("{} sent back", human::plural(moved, "message")));
            }
        }
        Ok(Exit::Success)
    }
}

impl View for Queues {
    fn table(&self) -> String {
        let columns = [
            ("QUEUE", Align::Left),
            ("READY", Align::Right),
            ("DELAYED", Align::Right),
            ("IN FLIGHT", Align::Right),
            ("OLDEST", Align::Right),
            ("DEAD LETTERS TO", Align::Left),
        ];
        let mut table = TextTable::new("no queues", &columns);
        for q in &self.0.queues {
            let oldest = q.oldest_us.map(human::micros).unwrap_or_default();
            let dead = q.dead_letter.clone().unwrap_or_default();
            table.row([q.name.clone(), human::count(q.ready), human::count(q.delayed), human::count(q.in_flight), oldest, dead]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.queues.iter().map(|q| q.name.clone()).collect::<Vec<_>>().join("\n")
    }
}

impl View for DeadLetters {
    fn table(&self) -> String {
        let columns =
            [("ID", Align::Left), ("SENT", Align::Left), ("RECEIVES", Align::Right), ("DIED IN", Align::Left), ("BODY", Align::Left)];
        let mut table = TextTable::new("no dead letters", &columns);
        for m in &self.0.messages {
            let body = human::one_line(&m.body.to_string(), 60);
            table.row([m.id.clone(), m.sent_at.clone(), m.receives.to_string(), m.died_in.clone().unwrap_or_default(), body]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.messages.iter().map(|m| m.id.clone()).collect::<Vec<_>>().join("\n")
    }
}
