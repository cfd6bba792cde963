//! One stage.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Facts, RangeFacts, StageFacts, Why, coming, count, fleet, job, session, since};
use crate::model::{ChainMode, Resources, StageState};
use crate::reactor::upstream_of;

/// A range that nobody has claimed for so long is worth a word.
const UNCLAIMED: Duration = Duration::from_secs(60);

/// State, reasons and next steps of a stage.
pub(super) fn explain<'a>(f: &Facts, s: &'a StageFacts) -> (&'a str, Why) {
    let mut why = Why::default();
    if s.is_done() {
        done(f, s, &mut why);
    } else if !job::holds_back(f, &mut why) {
        open(f, s, &mut why);
    }
    (s.row.state.as_str(), why)
}

fn done(f: &Facts, s: &StageFacts, why: &mut Why) {
    let r = &s.row;
    if r.succeeded == r.total {
        why.because(format!("all {} succeeded", count(r.total, "task")));
        return;
    }
    let counts = [("succeeded", r.succeeded), ("failed", r.failed), ("were cancelled", r.cancelled), ("were skipped", r.skipped)];
    let parts: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    why.because(format!("of {} {}", count(r.total, "task"), parts.join(", ")));
    job::failures(f, Some(s), why);
    if r.skipped > 0 {
        skipped(f, s, why);
    }
    if r.failed > 0 {
        why.next(format!("when the cause is gone: `tidemill batch retry {}`", f.job.id));
    }
    if r.cancelled > 0 {
        why.next("the job was cancelled: submit it anew");
    }
}

/// Why tasks were skipped.
pub(super) fn skipped(f: &Facts, s: &StageFacts, why: &mut Why) {
    let Some(source) = upstream_of(&f.spec, s.row.stage).and_then(|(from, _)| f.stages.get(from as usize)) else { return };
    let (failed, skipped) = (source.row.failed, source.row.skipped);
    why.because(format!("it takes its input from {}, of which {failed} failed and {skipped} were skipped", source.label()));
    why.next(format!("`tidemill batch retry {}` tries the failed tasks again; what was skipped then runs as well", f.job.id));
}

/// Reasons of a stage that is not done, of a job that runs.
pub(super) fn open(f: &Facts, s: &StageFacts, why: &mut Why) {
    if s.row.state == StageState::Blocked.as_str() {
        blocked(f, s, why);
        return;
    }
    running(f, s, why);
    let queued = out(f, s, why);
    job::retries(f, s, why);
    let pending = s.pending.len();
    if pending > 0 {
        why.because(format!("{} of {} are ready and not released yet", count(pending, "task"), s.label()));
    }
    if queued > 0 || pending > 0 {
        fleet::capacity(f, &needs(f, s), why);
    }
    upstream(f, s, why);
    session::open(f, s, why);
    if why.because.is_empty() {
        why.because(format!("every task of {} is settled, and it is about to be done", s.label()));
        why.next("nothing to do: this takes a moment");
    }
}

/// What a task of the stage needs.
pub(super) fn needs(f: &Facts, s: &StageFacts) -> Resources {
    f.spec_of(s).map(|spec| spec.resources.clone()).unwrap_or_default()
}

pub(super) fn blocked(f: &Facts, s: &StageFacts, why: &mut Why) {
    let id = &f.job.id;
    let Some((source, mode)) = upstream_of(&f.spec, s.row.stage).and_then(|(from, mode)| Some((f.stages.get(from as usize)?, mode))) else {
        why.because(format!("{} is opened when the inputs are cut into tasks", s.label()));
        why.next("nothing to do: this goes on by itself");
        return;
    };
    if !source.is_done() {
        let r = &source.row;
        let open = r.total.saturating_sub(source.settled());
        let of = format!("{open} of {} are not settled", count(r.total, "task"));
        why.because(format!("{} takes its input from {}, which has to be done first: {of}", s.label(), source.label()));
        why.next(format!("see `tidemill batch explain {id} --stage {}`", r.stage));
    } else if matches!(mode, ChainMode::Group { .. }) {
        why.because(format!("{} is done, and its outputs are being grouped for {}", source.label(), s.label()));
        why.next("nothing to do: the stage opens by itself when its groups are known");
    } else {
        why.because(format!("{} is done, and {} is about to open", source.label(), s.label()));
        why.next("nothing to do: this takes a moment");
    }
}

fn running(f: &Facts, s: &StageFacts, why: &mut Why) {
    let mut by_worker: BTreeMap<&str, u64> = BTreeMap::new();
    for (w, _) in f.running().filter(|(_, t)| t.stage == s.row.stage) {
        *by_worker.entry(&w.worker).or_default() += 1;
    }
    if by_worker.is_empty() {
        return;
    }
    let sum: u64 = by_worker.values().sum();
    let on = if by_worker.len() > 3 {
        count(by_worker.len() as u64, "worker")
    } else {
        format!("worker {}", by_worker.keys().copied().collect::<Vec<_>>().join(", "))
    };
    why.because(format!("{} of {} {} on {on}", count(sum, "task"), s.label(), if sum == 1 { "runs" } else { "run" }));
    for worker in by_worker.keys() {
        if let Some(silence) = job::heard(f, worker) {
            why.because(silence);
        }
    }
    why.next(format!("`tidemill batch tasks {} --state running` shows what runs, and for how long", f.job.id));
}

/// Ranges that are out and not running. Returns how many tasks are in the queue, with nobody.
fn out(f: &Facts, s: &StageFacts, why: &mut Why) -> u64 {
    let (mut queued, mut oldest): (u64, Option<&RangeFacts>) = (0, None);
    for r in s.ranges.iter().filter(|r| r.open() > 0) {
        let Some(claim) = &r.fence else {
            queued += r.open();
            oldest = oldest.filter(|o| o.released_at <= r.released_at).or(Some(r));
            continue;
        };
        if claim.finished {
            continue;
        }
        let which = format!("range {} of {} ({})", r.range, s.label(), count(r.open(), "task"));
        if claim.lease_until > f.now {
            if let Some(silence) = job::heard(f, &claim.worker) {
                why.because(format!("{which} is leased by worker {}, and {silence}", claim.worker));
                why.next(format!("another worker takes {which} when the lease ends {}", coming(f.now, claim.lease_until)));
            }
        } else {
            why.because(format!("{which} was with worker {}, whose lease ended {}", claim.worker, claim.lease_until));
            why.next("nothing to do: the queue delivers it to another worker");
            queued += r.open();
        }
    }
    if let Some(r) = oldest {
        why.because(format!(
            "{} of {} {} in the queue, the oldest range {}",
            count(queued, "task"),
            s.label(),
            if queued == 1 { "is" } else { "are" },
            since(f.now, r.released_at)
        ));
        unclaimed(f, r, why);
    }
    queued
}

/// A word about a range that nobody claims, although it has been there for long.
pub(super) fn unclaimed(f: &Facts, r: &RangeFacts, why: &mut Why) {
    if f.now.since(r.released_at) <= UNCLAIMED {
        return;
    }
    let (class, q) = (&f.job.class, f.queue);
    why.because(format!(
        "nobody has claimed range {} for long; the queue of class `{class}` has {} ready, {} delayed and {} under lease",
        r.range, q.ready, q.delayed, q.in_flight
    ));
    why.next(format!("`tidemill fleet list` shows the workers of class `{class}`; the log of one that is idle says what it waits for"));
}

/// Tasks of a streaming stage whose input is not there yet.
fn upstream(f: &Facts, s: &StageFacts, why: &mut Why) {
    let Some((from, ChainMode::Stream)) = upstream_of(&f.spec, s.row.stage) else { return };
    let Some(source) = f.stages.get(from as usize) else { return };
    let out: u64 = s.ranges.iter().map(RangeFacts::open).sum();
    let waiting = s.row.total.saturating_sub(s.settled() + s.pending.len() + out + s.row.retrying);
    if waiting > 0 && !source.is_done() {
        let verb = if waiting == 1 { "waits" } else { "wait" };
        why.because(format!(
            "{} of {} {verb} for the tasks of {} with the same numbers",
            count(waiting, "task"),
            s.label(),
            source.label()
        ));
        why.next(format!("see `tidemill batch explain {} --stage {from}`", f.job.id));
    }
}
