//! What became of a task, as it is shown, collected and archived.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidemill_base::Result;
use tidemill_batch::service::{DeadResult, Delivered};

/// A task that has ended, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The task.
    pub task: u64,
    /// Which try it was, from 1; 0 when it was not tried.
    pub attempt: u32,
    /// How long that ran, microseconds.
    pub run_us: u64,
    /// Who made it, and with what.
    pub made_by: Arc<str>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A result: its length, and its bytes unless they were not asked for.
    Value(u32, Bytes),
    /// It failed for good.
    Failed {
        /// The class of the failure; `None` when it was not run, since a result that it needs is missing.
        class: Option<String>,
        /// What is said of it.
        message: String,
    },
    /// It was cancelled, and never will have a result.
    Cancelled {
        /// What is said of it.
        message: String,
    },
}

impl Record {
    /// The result's bytes.
    pub const fn value(&self) -> Option<&Bytes> {
        match &self.outcome {
            Outcome::Value(_, bytes) => Some(bytes),
            Outcome::Failed { .. } | Outcome::Cancelled { .. } => None,
        }
    }
}

/// What counts of a delivery: results that were counted, and failures that are final, in the order of the delivery. What will be tried again,
/// and what came too late, is not among them.
pub fn records(delivered: &Delivered) -> Result<Vec<Record>> {
    let mut dead: BTreeMap<u64, &DeadResult> = delivered.dead.iter().map(|d| (d.task, d)).collect();
    let mut out = Vec::new();
    if let Some(page) = &delivered.page {
        let counted = |task: u64| delivered.succeeded.iter().any(|(start, len)| task >= *start && task - start < *len);
        let made_by: Arc<str> = page.made_by.as_str().into();
        // Without its bytes a delivery still says which tasks ended, and how.
        let values = if delivered.body.is_empty() { None } else { Some(page.split(&delivered.body)?) };
        for (at, (task, ok)) in page.tasks.iter().zip(&page.ok).enumerate() {
            let outcome = if *ok == 1 && counted(*task) {
                let value = values.as_ref().and_then(|v| v.get(at)).map(|(_, bytes)| bytes.clone()).unwrap_or_default();
                Outcome::Value(page.lens.get(at).copied().unwrap_or(0), value)
            } else if let (0, Some(failed)) = (*ok, dead.remove(task)) {
                failure(failed)
            } else {
                continue;
            };
            let run_us = page.run_us.get(at).copied().unwrap_or(0);
            out.push(Record { task: *task, attempt: page.attempt, run_us, made_by: Arc::clone(&made_by), outcome });
        }
    }
    let nobody: Arc<str> = "".into();
    let unmade = |task, outcome| Record { task, attempt: 0, run_us: 0, made_by: Arc::clone(&nobody), outcome };
    out.extend(dead.into_values().map(|d| unmade(d.task, failure(d))));
    if let Some(cancelled) = &delivered.cancelled {
        let tasks = cancelled.tasks.iter().flat_map(|(start, len)| *start..*start + *len);
        out.extend(tasks.map(|task| unmade(task, Outcome::Cancelled { message: cancelled.message.clone() })));
    }
    Ok(out)
}

fn failure(dead: &DeadResult) -> Outcome {
    Outcome::Failed { class: dead.class.map(|c| c.as_str().to_owned()), message: dead.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_batch::model::FailureClass;
    use tidemill_batch::protocol::{ResultBody, ResultPage};
    use tidemill_batch::service::Cancelled;

    #[test]
    fn only_what_counted_is_recorded() {
        let page = ResultPage {
            range: 0,
            epoch: 1,
            seq: 1,
            attempt: 2,
            made_by: "w1".into(),
            tasks: vec![4, 5, 6, 7],
            ok: vec![1, 0, 0, 1],
            run_us: vec![7, 8, 9, 10],
            lens: vec![3, 1, 1, 4],
            body: ResultBody::Inline(b"oneXYlate".to_vec()),
        };
        let dead = |task, class| DeadResult { task, class, message: "m".into() };
        // Task 6 will be tried again, task 7 came too late, task 9 was not run.
        let dead = vec![dead(5, Some(FailureClass::Error)), dead(9, None)];
        let mut delivered =
            Delivered { n: 3, page: Some(page), body: Bytes::from_static(b"oneXYlate"), succeeded: vec![(0, 5)], dead, cancelled: None };
        let found = records(&delivered).unwrap();
        let shown: Vec<(u64, u32, u64, &str)> = found.iter().map(|r| (r.task, r.attempt, r.run_us, &*r.made_by)).collect();
        assert_eq!(shown, [(4, 2, 7, "w1"), (5, 2, 8, "w1"), (9, 0, 0, "")]);
        assert_eq!(found[0].outcome, Outcome::Value(3, Bytes::from_static(b"one")));
        assert_eq!(found[1].outcome, Outcome::Failed { class: Some("error".into()), message: "m".into() });
        assert_eq!((found[2].value(), &found[2].outcome), (None, &Outcome::Failed { class: None, message: "m".into() }));
        delivered.cancelled = Some(Cancelled { tasks: vec![(20, 2)], message: "c".into() });
        let found = records(&delivered).unwrap();
        assert_eq!(found[3..].iter().map(|r| (r.task, r.attempt)).collect::<Vec<_>>(), [(20, 0), (21, 0)]);
        assert_eq!((found[4].value(), &found[4].outcome), (None, &Outcome::Cancelled { message: "c".into() }));
        delivered.body = Bytes::new();
        assert_eq!(records(&delivered).unwrap()[0].outcome, Outcome::Value(3, Bytes::new()));
    }
}
