//! Runs a policy against a load, in seconds of simulated time.

use std::collections::VecDeque;
use std::time::Duration;

use tidemill_base::Timestamp;

use super::policy::{ScaleInput, ScalePolicy, ScaleState, decide};
use super::{Arrival, Load};

/// What the fleet is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimSettings {
    /// Slots of one worker.
    pub slots_each: u32,
    /// From asking for a worker to its first task.
    pub boot: Duration,
    /// Price of a worker for an hour.
    pub price_per_hour: f64,
}

/// The fleet at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Seconds after the beginning.
    pub at_s: f64,
    /// Workers that take tasks.
    pub workers: u32,
    /// Tasks waiting or running.
    pub tasks: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// From the first arrival to the last task's end, seconds.
    pub completion_s: f64,
    /// The longest that any arrival took from its coming to the end of its last task, seconds.
    pub worst_turnaround_s: f64,
    /// Hours of workers, from being asked for to having gone.
    pub worker_hours: f64,
    /// Of them, hours in which slots had work, as a share of all.
    pub utilisation: f64,
    /// Price.
    pub cost: f64,
    /// The most workers there were.
    pub peak_workers: u32,
    /// Whether the load was done when the simulation gave up (at a year of simulated time).
    pub finished: bool,
    /// Up to a few thousand moments.
    pub points: Vec<Point>,
}

struct Waiting {
    arrival: Arrival,
    left_s: f64,
}

const YEAR_S: f64 = 366.0 * 86_400.0;

/// Runs it. Work is taken in order of arrival; a step is a second while there is work, and as long as nothing happens otherwise.
pub fn simulate(policy: &ScalePolicy, load: &Load, settings: &SimSettings) -> Outcome {
    let mut arrivals: VecDeque<Arrival> = load.0.iter().copied().collect();
    let first = arrivals.front().map_or(0.0, |a| a.at_s);
    let (mut now, mut state) = (0.0_f64, ScaleState::default());
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    // When each worker is ready.
    let mut workers: Vec<f64> = vec![0.0; policy.min as usize];
    let mut out = Outcome {
        completion_s: 0.0,
        worst_turnaround_s: 0.0,
        worker_hours: 0.0,
        utilisation: 0.0,
        cost: 0.0,
        peak_workers: policy.min,
        finished: false,
        points: Vec::new(),
    };
    let mut busy_s = 0.0;
    while now < YEAR_S {
        while arrivals.front().is_some_and(|a| a.at_s <= now) {
            if let Some(arrival) = arrivals.pop_front() {
                waiting.push_back(Waiting { arrival, left_s: arrival.tasks as f64 * arrival.task_s });
            }
        }
        let work_s: f64 = waiting.iter().map(|w| w.left_s).sum();
        let tasks: u64 = waiting.iter().map(|w| (w.left_s / w.arrival.task_s.max(1e-6)).ceil() as u64).sum();
        let size = u32::try_from(workers.len()).unwrap_or(u32::MAX);
        let at = Timestamp::from_millis((now * 1000.0) as i64);
        let input = ScaleInput { now: at, desired: size, slots_each: settings.slots_each, tasks, work_us: work_s * 1e6 };
        let desired = decide(policy, &mut state, &input).desired as usize;
        workers.resize(desired, now + settings.boot.as_secs_f64());
        let ready = workers.iter().filter(|w| **w <= now).count();
        out.peak_workers = out.peak_workers.max(u32::try_from(desired).unwrap_or(u32::MAX));
        out.points.push(Point { at_s: now, workers: u32::try_from(ready).unwrap_or(u32::MAX), tasks });
        if waiting.is_empty() && arrivals.is_empty() && desired <= policy.min as usize {
            out.finished = true;
            break;
        }
        let idle = waiting.is_empty() && desired <= policy.min as usize;
        let step = if idle { arrivals.front().map_or(1.0, |a| (a.at_s - now).max(1.0)) } else { 1.0 };
        let slots = ready as f64 * f64::from(settings.slots_each);
        busy_s += work(&mut waiting, slots, step, now, &mut out);
        out.worker_hours += desired as f64 * step / 3600.0;
        now += step;
    }
    out.completion_s = (out.completion_s - first).max(0.0);
    out.cost = out.worker_hours * settings.price_per_hour;
    let offered = out.worker_hours * 3600.0 * f64::from(settings.slots_each);
    out.utilisation = if offered > 0.0 { busy_s / offered } else { 0.0 };
    out.points = thin(std::mem::take(&mut out.points));
    out
}

/// Works for `step` seconds with so many slots; returns the slot time used.
fn work(waiting: &mut VecDeque<Waiting>, slots: f64, step: f64, now: f64, out: &mut Outcome) -> f64 {
    let (mut free, mut used) = (slots, 0.0);
    for w in waiting.iter_mut() {
        // One task takes one slot: the last few of an arrival cannot use them all.
        let parallel = free.min((w.left_s / w.arrival.task_s.max(1e-6)).ceil());
        let done = w.left_s.min(parallel * step);
        w.left_s -= done;
        used += done;
        free -= done / step;
        if w.left_s <= 1e-9 {
            let ended = now + step;
            out.completion_s = out.completion_s.max(ended);
            out.worst_turnaround_s = out.worst_turnaround_s.max(ended - w.arrival.at_s);
        }
        if free <= 1e-9 {
            break;
        }
    }
    waiting.retain(|w| w.left_s > 1e-9);
    used
}

fn thin(points: Vec<Point>) -> Vec<Point> {
    let keep = points.len().div_ceil(4000).max(1);
    points.into_iter().step_by(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::HumanDuration;

    const SETTINGS: SimSettings = SimSettings { slots_each: 4, boot: Duration::from_secs(60), price_per_hour: 0.2 };

    #[test]
    fn more_workers_finish_a_burst_sooner_at_about_the_same_price() {
        let load = Load::named("burst").unwrap();
        let run = |max| {
            simulate(&ScalePolicy { max, target: HumanDuration(Duration::from_secs(300)), ..ScalePolicy::default() }, &load, &SETTINGS)
        };
        let (few, many) = (run(5), run(50));
        assert!(few.finished && many.finished);
        // 50,000 s of work on 20 slots, and a minute to boot.
        assert!((2560.0..2580.0).contains(&few.completion_s), "{}", few.completion_s);
        assert!(many.completion_s < few.completion_s / 4.0, "{} {}", many.completion_s, few.completion_s);
        assert!(many.cost < few.cost * 2.0, "{} {}", many.cost, few.cost);
        assert_eq!(few.peak_workers, 5);
    }

    #[test]
    fn scales_to_zero_between_the_nights_of_a_month() {
        let load = Load::named("month-end").unwrap();
        let out = simulate(
            &ScalePolicy { max: 100, target: HumanDuration(Duration::from_secs(1800)), ..ScalePolicy::default() },
            &load,
            &SETTINGS,
        );
        assert!(out.finished);
        let work_hours = load.0.iter().map(|a| a.tasks as f64 * a.task_s).sum::<f64>() / 3600.0 / 4.0;
        assert!(out.worker_hours < work_hours * 2.0, "{} worker hours for {work_hours}", out.worker_hours);
        assert!(out.peak_workers > 50, "{}", out.peak_workers);
        assert!(out.utilisation > 0.5, "{}", out.utilisation);
    }
}
