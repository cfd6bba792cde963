//! One task.

use tidemill_base::ByteSize;

use super::place::{Place, place};
use super::{Attempt, Facts, RangeFacts, StageFacts, Why, coming, count, fleet, job, session, since, stage};
use crate::model::{FailureClass, JobState};
use crate::protocol::{Heartbeat, RunningTask};
use crate::reactor::upstream_of;
use crate::store::read::ExceptionRow;

/// State, reasons and next steps of a task.
pub(super) fn explain(f: &Facts, s: &StageFacts, task: u64) -> (&'static str, Why) {
    let mut why = Why::default();
    if session::cancelled(f, &mut why) {
        return ("cancelled", why);
    }
    let at = format!("{}/{task}", s.row.stage);
    let state = match place(f, s, task) {
        Place::Running(w, t, r) => running(f, s, w, t, r, &mut why),
        Place::Out(r) => out(f, s, task, r, &mut why),
        Place::Dead(e) => {
            failed(f, e, &mut why);
            why.next(format!("`tidemill batch logs {} {at}` shows what it wrote", f.job.id));
            why.next(if f.job.state == JobState::Cancelled {
                "the job was cancelled: submit it anew".to_owned()
            } else {
                format!("when the cause is gone: `tidemill batch retry {} {at}`", f.job.id)
            });
            "failed"
        }
        Place::Retrying(e, due) => {
            failed(f, e, &mut why);
            if due > f.now {
                why.because(format!("attempt {} is due {}", e.attempts + 1, coming(f.now, due)));
                why.next("nothing to do: it is tried again by itself");
            } else {
                why.because(format!("attempt {} is due", e.attempts + 1));
            }
            if !job::holds_back(f, &mut why) {
                why.next("nothing to do: it is released in a moment");
            }
            "retrying"
        }
        Place::Skipped => {
            skipped(f, s, task, &mut why);
            "skipped"
        }
        Place::Pending => pending(f, s, task, &mut why),
        Place::Blocked => {
            if !job::holds_back(f, &mut why) {
                stage::blocked(f, s, &mut why);
            }
            "waiting"
        }
        Place::Needs(missing) => {
            if !job::holds_back(f, &mut why) || !f.job.state.is_final() {
                session::waits(f, missing, &mut why);
            }
            if f.job.state.is_final() { "cancelled" } else { "waiting" }
        }
        Place::Upstream(from) => upstream(f, from, task, &mut why),
        Place::Settled => settled(f, s, &mut why),
    };
    (state, why)
}

fn running(f: &Facts, s: &StageFacts, w: &Heartbeat, t: &RunningTask, r: &RangeFacts, why: &mut Why) -> &'static str {
    let memory = if t.memory > 0 { format!(", with {} of memory", ByteSize(t.memory)) } else { String::new() };
    why.because(format!("worker {} runs attempt {} of it {}{memory}", w.worker, t.attempt, since(f.now, t.started_at)));
    if let Some(silence) = job::heard(f, &w.worker) {
        why.because(silence);
        lost(f, r, why);
    }
    if f.job.state == JobState::Cancelling {
        why.because("its job is being cancelled");
        why.next("nothing to do: the worker stops it within seconds");
    }
    match f.spec_of(s).and_then(|spec| spec.timeout) {
        Some(timeout) => why.next(format!("it ends by itself, or is killed by its timeout {}", coming(f.now, t.started_at + timeout.0))),
        None => why.next("it ends by itself; it has no timeout"),
    }
    why.next(format!("`tidemill batch logs {} {}/{} --follow` shows what it writes", f.job.id, s.row.stage, t.task));
    "running"
}

/// What becomes of a range whose worker may be lost.
fn lost(f: &Facts, r: &RangeFacts, why: &mut Why) {
    match r.claim(f.now) {
        Some(claim) => why.next(format!(
            "if the worker is lost, another takes range {} when its lease ends {}",
            r.range,
            coming(f.now, claim.lease_until)
        )),
        None => why.next(format!("another worker takes range {} as soon as the queue delivers it", r.range)),
    }
}

/// In a range that is in the queue or with a worker, and not running.
fn out(f: &Facts, s: &StageFacts, task: u64, r: &RangeFacts, why: &mut Why) -> &'static str {
    if let Some(e) = f.exceptions.get(&(s.row.stage, task)).filter(|e| !e.dead) {
        failed(f, e, why);
    }
    let which = format!("range {} (tasks {} to {}, attempt {})", r.range, r.start, r.start + r.len - 1, r.attempt);
    if let Some(fence) = &r.fence
        && (fence.finished || fence.settled.contains(task))
    {
        why.because(format!("worker {} has reported its outcome in {which}, and the manager is about to count it", fence.worker));
        if f.led {
            why.next("nothing to do: this takes a moment");
        } else {
            job::holds_back(f, why);
        }
        return "reported";
    }
    match r.claim(f.now) {
        Some(claim) => {
            let busy = f.worker(&claim.worker).map_or(0, |w| w.running.len() as u64);
            let until = coming(f.now, claim.lease_until);
            why.because(format!("it is in {which}, leased by worker {}, released {}", claim.worker, since(f.now, r.released_at)));
            why.because(format!("the worker goes through its ranges in order and runs {} now", count(busy, "task")));
            if let Some(silence) = job::heard(f, &claim.worker) {
                why.because(silence);
            }
            why.next(format!(
                "a slot of worker {} has to come free; the lease is renewed, and ends {until} if the worker is lost",
                claim.worker
            ));
        }
        None => {
            match &r.fence {
                Some(old) => {
                    why.because(format!("it is in {which}, and the lease of worker {} on it ended {}", old.worker, old.lease_until))
                }
                None => why.because(format!("it is in {which}, in the queue {}", since(f.now, r.released_at))),
            }
            stage::unclaimed(f, r, why);
            if !job::holds_back(f, why) {
                fleet::capacity(f, &stage::needs(f, s), why);
            }
        }
    }
    "waiting"
}

fn failed(f: &Facts, e: &ExceptionRow, why: &mut Why) {
    let of = f.stages.get(e.stage as usize).and_then(|s| f.spec_of(s)).map(|spec| {
        let by_class = FailureClass::from_word(&e.class).and_then(|c| spec.retry.attempts_by_class.get(&c).copied());
        by_class.unwrap_or(spec.retry.policy.attempts)
    });
    let tries = match of {
        Some(most) if e.dead && e.attempts < most => format!("attempt {}, and failures like this are not tried again,", e.attempts),
        Some(most) => format!("attempt {} of {most}", e.attempts),
        None => format!("attempt {}", e.attempts),
    };
    why.because(format!("{tries} failed on worker {} with {}: {}", e.worker, job::words(&e.class), job::one_line(&e.message)));
}

fn skipped(f: &Facts, s: &StageFacts, task: u64, why: &mut Why) {
    if session::skipped(f, why) {
        return;
    }
    let from = upstream_of(&f.spec, s.row.stage).map(|(from, _)| from);
    match from.and_then(|from| f.exceptions.get(&(from, task))).filter(|e| e.dead) {
        Some(e) => {
            let source = f.stages.get(e.stage as usize).map_or_else(|| format!("stage {}", e.stage), StageFacts::label);
            why.because(format!("task {task} of {source}, which it takes its input from, failed for good"));
            failed(f, e, why);
            why.next(format!(
                "when the cause is gone: `tidemill batch retry {} {}/{task}`; this task then runs as well",
                f.job.id, e.stage
            ));
        }
        None => stage::skipped(f, s, why),
    }
    if why.because.is_empty() {
        why.because("what it takes its input from failed");
        why.next(format!("`tidemill batch retry {}`", f.job.id));
    }
}

fn pending(f: &Facts, s: &StageFacts, task: u64, why: &mut Why) -> &'static str {
    if job::holds_back(f, why) {
        return "waiting";
    }
    let before = s.pending.runs().map(|(start, len)| if start >= task { 0 } else { len.min(task - start) }).sum::<u64>();
    why.because(format!("it is ready and not released yet, with {} of its stage before it", count(before, "task")));
    fleet::capacity(f, &stage::needs(f, s), why);
    "waiting"
}

fn upstream(f: &Facts, from: u32, task: u64, why: &mut Why) -> &'static str {
    if job::holds_back(f, why) && f.job.state.is_final() {
        return "cancelled";
    }
    if let Some(source) = f.stages.get(from as usize) {
        let (state, theirs) = explain(f, source, task);
        why.because(format!("it takes its input from task {task} of {}, which is {state}", source.label()));
        why.add(theirs);
    }
    "waiting"
}

fn settled(f: &Facts, s: &StageFacts, why: &mut Why) -> &'static str {
    if let Some(ok) = f.attempts.iter().find(|a| a.class.is_none()) {
        let took = tidemill_base::HumanDuration(std::time::Duration::from_micros(ok.run_us));
        why.because(format!("attempt {} succeeded on worker {} after {took}", ok.attempt, ok.worker));
        for Attempt { attempt, class, worker, .. } in &f.attempts {
            if let Some(class) = class {
                why.because(format!("attempt {attempt} had failed on worker {worker} with {}", job::words(class.as_str())));
            }
        }
        return "succeeded";
    }
    // A stage whose every task succeeded needs no statistics to tell that this one did.
    if s.row.total > 0 && s.row.succeeded == s.row.total {
        why.because("every task of its stage succeeded");
        return "succeeded";
    }
    match f.job.state {
        JobState::Cancelled | JobState::Cancelling => {
            job::holds_back(f, why);
            "cancelled"
        }
        JobState::Waiting => {
            job::holds_back(f, why);
            "waiting"
        }
        _ => {
            why.because("its outcome is being counted");
            why.next("nothing to do: ask again in a moment");
            "reported"
        }
    }
}
