//! Why work that is ready is not taken up: no workers, too small ones, or none that is free.

use std::collections::BTreeMap;

use tidemill_base::ByteSize;
use tidemill_blocks::fleet::{MemberState, Offers};

use super::{Facts, GroupFacts, Why, count, since, span};
use crate::model::Resources;
use crate::protocol::{Heartbeat, WorkerPhase};

/// Why tasks that need `needs` are not running yet.
pub(super) fn capacity(f: &Facts, needs: &Resources, why: &mut Why) {
    let class = f.job.class.as_str();
    let members: Vec<&Heartbeat> = f.workers.iter().filter(|w| w.class == class).collect();
    let group = f.groups.iter().find(|g| g.group.spec.name == class);
    let ready: Vec<&Heartbeat> = members.iter().copied().filter(|w| w.phase == WorkerPhase::Ready && !f.is_silent(w)).collect();
    if ready.is_empty() {
        no_worker(f, &members, group, why);
        return;
    }
    let fitting: Vec<&Heartbeat> = ready.iter().copied().filter(|w| needs.fit(&w.offers)).collect();
    if fitting.is_empty() {
        too_small(f, &ready, needs, why);
    } else {
        busy(f, &fitting, group, needs, why);
    }
}

fn no_worker(f: &Facts, members: &[&Heartbeat], group: Option<&GroupFacts>, why: &mut Why) {
    let class = &f.job.class;
    for w in members {
        if f.is_silent(w) {
            why.because(format!("worker {} of class `{class}` has been silent for {}", w.worker, span(f.now.since(w.at))));
        } else if w.phase == WorkerPhase::Draining {
            why.because(format!("worker {} of class `{class}` is draining and takes nothing new", w.worker));
        }
    }
    let by_hand = format!("start a worker: `tidemill worker --manager URL --class {class} --slots N`");
    let Some(GroupFacts { group, trouble }) = group else {
        why.because(format!("there is no worker that takes class `{class}`, and no group that would start one"));
        why.next(by_hand);
        return;
    };
    let starting = group.members.iter().filter(|m| m.state == MemberState::Starting).collect::<Vec<_>>();
    if let Some(trouble) = trouble {
        why.because(format!("the group `{class}` has trouble: {trouble}"));
        why.next("put right what the group says; it tries again by itself");
    } else if group.spec.max == 0 {
        why.because(format!("the group `{class}` may have no workers: its maximum is 0"));
        why.next("start the server with a higher maximum: `tidemill serve --workers 0..N`");
        why.next(by_hand);
    } else if let Some(m) = starting.first() {
        why.because(format!("worker {} of the group `{class}` is starting, {}", m.id, since(f.now, m.started_at)));
        why.next("nothing to do: it takes work as soon as it is up, and is replaced if it does not come up");
    } else {
        let (members, desired) = (group.members.len() as u64, group.desired);
        why.because(format!("the group `{class}` has {} and should have {desired}", count(members, "worker")));
        why.next("nothing to do: the group is scaled to its backlog twice a second; `tidemill fleet list` shows why it has its size");
    }
}

fn too_small(f: &Facts, ready: &[&Heartbeat], needs: &Resources, why: &mut Why) {
    let class = &f.job.class;
    let most = |n: &dyn Fn(&Offers) -> u64| ready.iter().map(|w| n(&w.offers)).max().unwrap_or(0);
    let slots = most(&|o| u64::from(o.slots));
    let memory = most(&|o| o.memory);
    let mut each = Vec::new();
    if slots < u64::from(needs.cpus) {
        each.push(format!("{} slots, and the largest worker of class `{class}` has {slots}", needs.cpus));
    }
    if memory < needs.memory {
        each.push(format!("{} of memory, and the largest worker of class `{class}` has {}", ByteSize(needs.memory), ByteSize(memory)));
    }
    for (name, n) in &needs.named {
        let has = most(&|o| o.named.get(name).copied().unwrap_or(0));
        if has < *n {
            each.push(format!("{n} of `{name}`, and no worker of class `{class}` has more than {has}"));
        }
    }
    if each.is_empty() {
        each.push("more than any one worker has, although each of its needs alone is met somewhere".to_owned());
    }
    for text in each {
        why.because(format!("a task needs {text}"));
    }
    why.next(format!("start a worker that is large enough: `tidemill worker --manager URL --class {class} --slots {}`", needs.cpus));
    why.next(format!("or ask for less in `resources`, and submit anew after `tidemill batch cancel {}`", f.job.id));
}

fn busy(f: &Facts, fitting: &[&Heartbeat], group: Option<&GroupFacts>, needs: &Resources, why: &mut Why) {
    let class = &f.job.class;
    let (mut slots, mut used, mut widest) = (0_u64, 0_u64, 0_u64);
    let mut by_job: BTreeMap<&str, u64> = BTreeMap::new();
    for w in fitting {
        let mut mine = 0;
        for t in &w.running {
            *by_job.entry(&t.job).or_default() += 1;
            // What the tasks of other jobs take is not known here; one slot is what most take.
            let own = if t.job == f.job.id { f.spec.stages.get(t.stage as usize).map(|s| s.resources.cpus) } else { None };
            mine += u64::from(own.unwrap_or(1));
        }
        let all = u64::from(w.offers.slots);
        (slots, used, widest) = (slots + all, used + mine.min(all), widest.max(all.saturating_sub(mine)));
    }
    if used >= slots {
        let list: Vec<String> = by_job.iter().map(|(job, n)| holder(f, job, *n)).collect();
        why.because(format!("all {} of class `{class}` are taken: {}", count(slots, "slot"), list.join(", ")));
        grow(f, group, why);
    } else if widest < u64::from(needs.cpus) {
        why.because(format!("a task takes {} slots at once, and no worker of class `{class}` has more than {widest} free", needs.cpus));
        grow(f, group, why);
    } else {
        why.because(format!("class `{class}` has {} free, and workers are about to take more", count(slots - used, "slot")));
        why.next("nothing to do: work is released as fast as workers take it, several times a second");
    }
    rivals(f, why);
}

fn holder(f: &Facts, job: &str, tasks: u64) -> String {
    if job == f.job.id {
        return format!("{tasks} by this job");
    }
    match f.rivals.iter().find(|r| r.id == job) {
        Some(r) => format!("{tasks} by job {job} (user {}, priority {})", r.user, r.priority),
        None => format!("{tasks} by job {job}"),
    }
}

fn grow(f: &Facts, group: Option<&GroupFacts>, why: &mut Why) {
    let class = &f.job.class;
    why.next("slots come free as the tasks that hold them end");
    let more = format!("add a worker: `tidemill worker --manager URL --class {class} --slots N`");
    match group {
        Some(GroupFacts { trouble: Some(trouble), .. }) => why.because(format!("the group `{class}` cannot grow: {trouble}")),
        Some(GroupFacts { group, .. }) if group.desired < group.spec.max => {
            why.next(format!(
                "the group `{class}` grows by itself when the backlog needs it: {} now, {} at most",
                group.desired, group.spec.max
            ));
        }
        Some(GroupFacts { group, .. }) => {
            why.because(format!("the group `{class}` is at its maximum of {}", count(u64::from(group.spec.max), "worker")));
            why.next(more);
        }
        None => why.next(more),
    }
}

/// Other jobs that go before this one, or share with it.
fn rivals(f: &Facts, why: &mut Why) {
    const NAMED: usize = 3;
    let name = |r: &&super::Rival| format!("{} (user {}, priority {}, {} left)", r.id, r.user, r.priority, count(r.open, "task"));
    let list = |found: &[&super::Rival]| {
        let mut names: Vec<String> = found.iter().take(NAMED).map(name).collect();
        if found.len() > NAMED {
            names.push(format!("and {} more", found.len() - NAMED));
        }
        names.join(", ")
    };
    let open = || f.rivals.iter().filter(|r| r.open > 0);
    let above: Vec<_> = open().filter(|r| r.priority > f.job.priority).collect();
    let beside: Vec<_> = open().filter(|r| r.priority == f.job.priority).collect();
    if !above.is_empty() {
        why.because(format!("jobs of higher priority go first: {}", list(&above)));
    }
    if !beside.is_empty() {
        why.because(format!("jobs of the same priority share the workers, each user as much: {}", list(&beside)));
    }
    if !above.is_empty() || !beside.is_empty() {
        let top = above.first().map_or(f.job.priority, |r| r.priority);
        why.next(format!("to go before them: `tidemill batch priority {} {}`", f.job.id, top.saturating_add(1).min(1000)));
    }
}
