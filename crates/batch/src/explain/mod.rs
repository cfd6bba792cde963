//! Why a job, a stage or a task is as it is, and what would move it on.
//!
//! Nothing in Tidemill waits silently: for whatever waits, [`explain`] names what it waits for and what would free it. It is a plain
//! function over [`Facts`], so each answer is a line in a table of tests; [`Facts::gather`] reads them from ledger, table, queue and
//! fleet without a lock, so facts may be a moment apart from each other.
//!
//! Every answer has at least one reason, and one next step unless the thing has come to a good end.

mod facts;
mod fleet;
mod gather;
mod job;
mod place;
mod session;
mod stage;
mod task;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tidemill_base::{Error, HumanDuration, Result, Timestamp};

pub use facts::{Attempt, Facts, FailureCount, GroupFacts, RangeFacts, Rival, StageFacts};
pub use session::SessionFacts;

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The whole job.
    Job,
    /// One of its stages, from 0.
    Stage(u32),
    /// One task of a stage.
    Task(u32, u64),
}

/// Why a thing is as it is, and what would change that. For people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What was asked about.
    pub subject: String,
    /// Its state in one word.
    pub state: String,
    /// Reasons, the nearest first.
    pub because: Vec<String>,
    /// What would move it on, the best first.
    pub next: Vec<String>,
}

/// Explains. `NotFound` when the job has no such stage or task.
pub fn explain(facts: &Facts, about: About) -> Result<Explanation> {
    let explanation = explain_job(facts, about)?;
    Ok(if facts.session.is_some() { session::in_its_words(&facts.job.id, explanation) } else { explanation })
}

fn explain_job(facts: &Facts, about: About) -> Result<Explanation> {
    let job = &facts.job;
    match about {
        About::Job => Ok(job::explain(facts).of(format!("job {} `{}`", job.id, job.name), job.state.as_str())),
        About::Stage(stage) => {
            let s = stage_of(facts, stage)?;
            let (state, why) = stage::explain(facts, s);
            Ok(why.of(format!("stage {stage} `{}` of job {}", s.row.name, job.id), state))
        }
        About::Task(stage, task) => {
            let s = stage_of(facts, stage)?;
            if task >= s.row.total && s.row.total > 0 {
                let name = &s.row.name;
                return Err(Error::not_found(format!(
                    "stage {stage} `{name}` of job {} has no task {task}; its tasks are 0 to {}",
                    job.id,
                    s.row.total - 1
                )));
            }
            let (state, why) = task::explain(facts, s, task);
            Ok(why.of(format!("task {task} of stage {stage} `{}` of job {}", s.row.name, job.id), state))
        }
    }
}

fn stage_of(facts: &Facts, stage: u32) -> Result<&StageFacts> {
    facts.stages.get(stage as usize).ok_or_else(|| {
        let names: Vec<String> = facts.stages.iter().map(|s| format!("{} `{}`", s.row.stage, s.row.name)).collect();
        Error::not_found(format!("job {} has no stage {stage}; its stages are {}", facts.job.id, names.join(", ")))
    })
}

/// Reasons and next steps as they are found; the same is not said twice.
#[derive(Debug, Default)]
struct Why {
    because: Vec<String>,
    next: Vec<String>,
}

impl Why {
    fn because(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.because.contains(&text) {
            self.because.push(text);
        }
    }

    fn next(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.next.contains(&text) {
            self.next.push(text);
        }
    }

    fn add(&mut self, other: Self) {
        other.because.into_iter().for_each(|text| self.because(text));
        other.next.into_iter().for_each(|text| self.next(text));
    }

    fn of(self, subject: String, state: &str) -> Explanation {
        Explanation { subject, state: state.to_owned(), because: self.because, next: self.next }
    }
}

/// A span of time for people: whole seconds once it is longer than one.
fn span(d: Duration) -> HumanDuration {
    HumanDuration(if d < Duration::from_secs(1) { d } else { Duration::from_secs(d.as_secs()) })
}

/// A moment that is to come: `at 2026-01-01T00:00:00Z, in 5s`.
fn coming(now: Timestamp, at: Timestamp) -> String {
    format!("at {at}, in {}", span(at.since(now)))
}

/// A moment that has been: `since 2026-01-01T00:00:00Z, for 5s`.
fn since(now: Timestamp, at: Timestamp) -> String {
    format!("since {at}, for {}", span(now.since(at)))
}

/// `1 task`, `2 tasks`.
fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
