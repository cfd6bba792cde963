//! The whole job.

use std::collections::BTreeMap;

use super::{Facts, StageFacts, Why, coming, count, span, stage};
use crate::model::{FailureClass, JobState};
use crate::spec;

/// Reasons and next steps of a job.
pub(super) fn explain(f: &Facts) -> Why {
    let mut why = Why::default();
    if holds_back(f, &mut why) {
        return why;
    }
    for s in f.stages.iter().filter(|s| !s.is_done()) {
        stage::open(f, s, &mut why);
    }
    if why.because.is_empty() {
        why.because("every stage is done, and the job is about to end");
        why.next("nothing to do: this takes a moment");
    }
    let dead: u64 = f.stages.iter().map(|s| s.row.failed).sum();
    if dead > 0 {
        failures(f, None, &mut why);
        why.next(format!("`tidemill batch retry {}` tries failed tasks again, also while the job runs", f.job.id));
    }
    why
}

/// What holds every task of the job back that has not been started. Whether anything does.
pub(super) fn holds_back(f: &Facts, why: &mut Why) -> bool {
    if !f.led && !f.job.state.is_final() {
        why.because("no manager leads the batch system at the moment, so nothing is released and nothing is counted");
        why.next("nothing to do if this lasts for seconds: a manager takes over when the last one's lease ends; else see the server's log");
        return true;
    }
    let mut own = Why::default();
    match f.job.state {
        JobState::Running => return false,
        JobState::Waiting => waiting(f, &mut own),
        JobState::Paused => paused(f, &mut own),
        JobState::Cancelling => cancelling(f, &mut own),
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => ended(f, &mut own),
    }
    why.add(own);
    true
}

fn waiting(f: &Facts, why: &mut Why) {
    let id = &f.job.id;
    if let Some(line) = &f.spec.cron {
        let zone = &f.spec.timezone;
        match spec::next_tick(line, zone, f.now) {
            Ok(tick) => {
                why.because(format!("it submits a copy of itself by the cron line `{line}` in {zone}, next {}", coming(f.now, tick)))
            }
            Err(e) => why.because(format!("its cron line has no next tick: {}", e.message())),
        }
        why.next(format!("nothing to do until then; `tidemill batch cancel {id}` ends the schedule"));
        return;
    }
    if f.job.start_after > f.now {
        why.because(format!("it starts {}", coming(f.now, f.job.start_after)));
        why.next("nothing to do until then; to start it now, submit it without `at`");
    }
    for (other, state) in &f.after {
        match state {
            Some(JobState::Succeeded) => {}
            Some(s) if s.is_final() => {
                why.because(format!("job {other}, which it waits for, has {}: this one is about to be cancelled", s.as_str()));
                why.next(format!("see `tidemill batch explain {other}`, and submit both anew"));
            }
            Some(s) => {
                why.because(format!("it waits for job {other}, which is {}", s.as_str()));
                why.next(format!("see `tidemill batch explain {other}`"));
            }
            None => {
                why.because(format!("it waits for job {other}, which is not there any more"));
                why.next(format!("`tidemill batch cancel {id}`, and submit it without that job in `after`"));
            }
        }
    }
    if why.because.is_empty() {
        why.because(if f.cut { "it is due and starts in a moment" } else { "its inputs are being cut into tasks" });
        why.next("nothing to do: it starts by itself, and fails with the reason if its inputs cannot be read");
    }
}

fn paused(f: &Facts, why: &mut Why) {
    why.because("it was paused, so nothing new is released");
    let running = f.running().count() as u64;
    if running > 0 {
        why.because(format!("{} that had been started {} to the end", count(running, "task"), if running == 1 { "runs" } else { "run" }));
    }
    why.next(format!("`tidemill batch resume {}`", f.job.id));
}

fn cancelling(f: &Facts, why: &mut Why) {
    why.because(if f.job.reason.is_empty() { "it was cancelled" } else { f.job.reason.as_str() });
    let mut by_worker: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (w, t) in f.running() {
        by_worker.entry(&w.worker).or_default().push(format!("{}/{}", t.stage, t.task));
    }
    for (worker, tasks) in by_worker {
        let silent = f.worker(worker).is_some_and(|w| f.is_silent(w));
        let more = if tasks.len() > 5 { ", ..." } else { "" };
        let list = tasks.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let said = if silent { "said last that it runs" } else { "still runs" };
        why.because(format!("worker {worker} {said} {} (STAGE/TASK {list}{more})", count(tasks.len() as u64, "task")));
    }
    for (s, r) in f.stages.iter().flat_map(|s| s.ranges.iter().map(move |r| (s, r))) {
        match r.claim(f.now) {
            Some(claim) => why.because(format!(
                "range {} of {} is with worker {}, whose lease ends {}",
                r.range,
                s.label(),
                claim.worker,
                coming(f.now, claim.lease_until)
            )),
            None => why.because(format!("range {} of {} is in the queue and is being taken back", r.range, s.label())),
        }
    }
    why.next("nothing to do: workers stop its tasks within seconds, and what a lost worker holds is free when its lease ends");
}

fn ended(f: &Facts, why: &mut Why) {
    let total: u64 = f.stages.iter().map(|s| s.row.total).sum();
    let id = &f.job.id;
    match f.job.state {
        JobState::Succeeded => {
            // Only of a session, whose tasks may be given up one by one.
            let cancelled: u64 = f.stages.iter().map(|s| s.row.cancelled).sum();
            let all = format!("all {} of {} succeeded", count(total - cancelled, "task"), count(f.stages.len() as u64, "stage"));
            let but = if cancelled > 0 { format!(", but for {cancelled} that were cancelled") } else { String::new() };
            why.because(format!("{all}{but}"));
            if !f.job.reason.is_empty() {
                why.because(f.job.reason.as_str());
            }
        }
        JobState::Cancelled => {
            why.because(if f.job.reason.is_empty() { "it was cancelled" } else { f.job.reason.as_str() });
            let cancelled: u64 = f.stages.iter().map(|s| s.row.cancelled).sum();
            if cancelled > 0 {
                why.because(format!("{} had not come to an end by then", count(cancelled, "task")));
            }
            why.next("a cancelled job stays so: submit it anew");
        }
        _ => {
            if !f.job.reason.is_empty() {
                why.because(f.job.reason.as_str());
            }
            failures(f, None, why);
            let skipped: u64 = f.stages.iter().map(|s| s.row.skipped).sum();
            if skipped > 0 {
                why.because(format!("{} did not run, since what they take their input from failed", count(skipped, "task")));
            }
            if why.because.is_empty() {
                why.because("it came to its end with failed tasks");
            }
            let dead: u64 = f.stages.iter().map(|s| s.row.failed).sum();
            if dead > 0 {
                why.next(format!(
                    "`tidemill batch tasks {id} --state failed` lists them, `tidemill batch logs {id} STAGE/TASK` shows what one wrote"
                ));
                why.next(format!("when the cause is gone: `tidemill batch retry {id}`"));
            } else {
                why.next("put right what the reason says, and submit it anew");
            }
        }
    }
}

/// Tasks that failed for good, by class. `only` keeps to one stage.
pub(super) fn failures(f: &Facts, only: Option<&StageFacts>, why: &mut Why) {
    for x in f.failures.iter().filter(|x| x.dead && only.is_none_or(|s| s.row.stage == x.stage)) {
        let stage = f.stages.get(x.stage as usize).map_or_else(|| format!("stage {}", x.stage), StageFacts::label);
        let (tasks, which) = (count(x.tasks, "task"), if x.tasks == 1 { "task" } else { "the first of them task" });
        why.because(format!("{tasks} of {stage} failed with {}, {which} {}: {}", words(&x.class), x.first, one_line(&x.message)));
    }
}

/// A failure class in words.
pub(super) fn words(class: &str) -> &str {
    match FailureClass::from_word(class) {
        Some(FailureClass::Exit) => "exit (an exit code that is no success)",
        Some(FailureClass::Signal) => "signal (ended from outside)",
        Some(FailureClass::OutOfMemory) => "out_of_memory (more memory than it asked for)",
        Some(FailureClass::Timeout) => "timeout (longer than its timeout)",
        Some(FailureClass::LostWorker) => "lost_worker (its worker was lost)",
        Some(FailureClass::Start) => "start (the command could not be started)",
        Some(FailureClass::Input) => "input (its input could not be read)",
        Some(FailureClass::Output) => "output (its output was not there)",
        Some(FailureClass::Storage) => "storage (data could not be fetched or stored)",
        Some(FailureClass::Error) => "error (the function said so)",
        None => class,
    }
}

/// The first line of a message, cut to a length for lists.
pub(super) fn one_line(text: &str) -> String {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("no message").trim();
    match line.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

/// When tasks of a stage are tried again next.
pub(super) fn retries(f: &Facts, s: &StageFacts, why: &mut Why) {
    if s.row.retrying == 0 {
        return;
    }
    let due = match s.first_retry {
        Some(at) if at > f.now => format!(", the first {}", coming(f.now, at)),
        _ => String::new(),
    };
    let kinds: Vec<&str> = f.failures.iter().filter(|x| !x.dead && x.stage == s.row.stage).map(|x| x.class.as_str()).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" after {}", kinds.join(", ")) };
    let verb = if s.row.retrying == 1 { "waits" } else { "wait" };
    why.because(format!("{} of {} {verb} for another attempt{kinds}{due}", count(s.row.retrying, "task"), s.label()));
    why.next(format!("nothing to do: they are tried again by themselves; `tidemill batch tasks {} --state retrying` lists them", f.job.id));
}

/// How long ago a worker was heard of.
pub(super) fn heard(f: &Facts, worker: &str) -> Option<String> {
    match f.worker(worker) {
        Some(w) if f.is_silent(w) => Some(format!("worker {worker} has been silent for {}", span(f.now.since(w.at)))),
        Some(_) => None,
        None => Some(format!("worker {worker} has not been heard of for a minute or more")),
    }
}
