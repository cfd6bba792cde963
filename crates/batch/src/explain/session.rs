//! What only sessions have: they are open and may be empty, and their tasks may wait for the results of others.

use tidemill_base::{Result, RunSet};
use tidemill_blocks::Blocks;
use tidemill_blocks::objects;

use super::{About, Explanation, Facts, RangeFacts, StageFacts, Why, count};
use crate::model::JobSpec;
use crate::protocol::submission::Submission;
use crate::store::{read, sessions};

/// Completions read in one call.
const COMPLETIONS: u64 = 1000;
/// Missing results that are named.
const NAMED: usize = 10;

/// What is known of a session beside its stage.
#[derive(Debug, Clone, Default)]
pub struct SessionFacts {
    /// Whether it takes tasks.
    pub open: bool,
    /// Of the task asked about: the tasks whose results it needs that have none.
    pub missing: Vec<u64>,
    /// Of the task asked about: it was cancelled by itself, or since a budget was used up.
    pub cancelled: bool,
    /// A budget is used up.
    pub stopped: bool,
}

/// Reads them; `None` for a job that is no session.
pub(super) async fn gather(blocks: &Blocks, id: &str, spec: &JobSpec, about: About) -> Result<Option<SessionFacts>> {
    if !spec.is_session() {
        return Ok(None);
    }
    let (open, _) = read::session(blocks.ledger.as_ref(), id).await?;
    let row = sessions::row(blocks.ledger.as_ref(), id).await?.unwrap_or_default();
    let (missing, cancelled) = match about {
        About::Task(_, task) => (missing(blocks, id, task).await?, row.given_up.contains(task)),
        About::Job | About::Stage(_) => (Vec::new(), false),
    };
    Ok(Some(SessionFacts { open, missing, cancelled, stopped: row.stopped }))
}

async fn missing(blocks: &Blocks, id: &str, task: u64) -> Result<Vec<u64>> {
    let ledger = blocks.ledger.as_ref();
    let rows = sessions::submissions_of(ledger, id, task, task.saturating_add(1)).await?;
    let Some(row) = rows.into_iter().find(|r| task >= r.first && task - r.first < r.count) else { return Ok(Vec::new()) };
    let body = match (row.body, &row.object) {
        (Some(bytes), _) => bytes.into(),
        (None, Some(path)) => objects::get(blocks.objects.as_ref(), &objects::parse_path(path)?).await?,
        (None, None) => return Ok(Vec::new()),
    };
    let at = usize::try_from(task - row.first).unwrap_or(usize::MAX);
    let mut needs: Vec<u64> = Submission::parse(body)?.dependencies(at, row.first).collect();
    let mut after = 0;
    while !needs.is_empty() {
        let completions = sessions::completions(ledger, id, after, COMPLETIONS).await?;
        let Some(last) = completions.last() else { break };
        after = last.n;
        let mut found = RunSet::new();
        for (start, len) in completions.iter().flat_map(|c| &c.succeeded) {
            found.insert_run(*start, *len);
        }
        needs.retain(|n| !found.contains(*n));
    }
    needs.sort_unstable();
    needs.dedup();
    Ok(needs)
}

/// Reasons of a session's stage that is not done.
pub(super) fn open(f: &Facts, s: &StageFacts, why: &mut Why) {
    let Some(session) = &f.session else { return };
    let id = &f.job.id;
    if !f.job.reason.is_empty() {
        why.because(format!("it takes no more tasks: {}", f.job.reason));
        why.next("nothing to do: it ends when what its workers have in hand has ended or come back");
    }
    let out: u64 = s.ranges.iter().map(RangeFacts::open).sum();
    let waiting = s.row.total.saturating_sub(s.settled() + s.pending.len() + out + s.row.retrying);
    if waiting > 0 {
        let verb = if waiting == 1 { "waits" } else { "wait" };
        why.because(format!("{} {verb} for the results of others", count(waiting, "task")));
        why.next(format!("see `tidemill grid explain {id} --task N` for one of those"));
    }
    if !session.open {
        return;
    }
    if s.row.total == 0 {
        why.because("the session is open, and no tasks have been submitted to it");
    } else if s.settled() == s.row.total {
        why.because(format!("all of its {} are settled, and the session is open for more", count(s.row.total, "task")));
    } else {
        return;
    }
    why.next(format!("submit tasks, or end it: `tidemill grid close {id}`"));
}

/// Reasons of a task that waits for results.
pub(super) fn waits(f: &Facts, missing: &[u64], why: &mut Why) {
    let more = if missing.len() > NAMED { format!(" and {} more", missing.len() - NAMED) } else { String::new() };
    let named: Vec<String> = missing.iter().take(NAMED).map(u64::to_string).collect();
    let noun = if missing.len() == 1 { "task" } else { "tasks" };
    why.because(format!("it needs the results of {noun} {}{more}, which are not there yet", named.join(", ")));
    if let Some(first) = missing.first() {
        why.next(format!("see `tidemill grid explain {} --task {first}`", f.job.id));
    }
}

/// Reasons of a task that was cancelled by itself; whether it was.
pub(super) fn cancelled(f: &Facts, why: &mut Why) -> bool {
    let Some(session) = f.session.as_ref().filter(|s| s.cancelled) else { return false };
    if session.stopped && !f.job.reason.is_empty() {
        why.because(format!("the session was stopped: {}", f.job.reason));
        why.next("submit it to a session with a larger budget");
    } else {
        why.because("it was cancelled");
        why.next("a cancelled task stays so: submit it anew");
    }
    true
}

/// Reasons of a task that is not run because a result that it needs will not come. Whether any is known.
pub(super) fn skipped(f: &Facts, why: &mut Why) -> bool {
    let Some(first) = f.session.as_ref().and_then(|s| s.missing.first()) else { return false };
    why.because(format!("it needs the result of task {first}, which failed, or was not run either"));
    why.next(format!("see `tidemill grid explain {} --task {first}`; after a retry of that this one runs as well", f.job.id));
    true
}

/// The words for a session in the place of those for a job.
pub(super) fn in_its_words(id: &str, mut e: Explanation) -> Explanation {
    e.subject = e.subject.replacen(&format!("job {id}"), &format!("session {id}"), 1).replacen("stage 0 `tasks` of ", "", 1);
    for text in e.because.iter_mut().chain(&mut e.next) {
        *text = text.replace(&format!("`tidemill batch retry {id} 0/"), &format!("`tidemill grid retry {id} "));
        for command in ["cancel", "explain", "resume", "retry"] {
            *text = text.replace(&format!("`tidemill batch {command} "), &format!("`tidemill grid {command} "));
        }
    }
    e
}
