//! Managers and workers that die.

use std::time::{Duration, Instant};

use tidemill_it::{Dice, Engine, eventually, pause, within};

use super::{Mill, TAKE_OVER, check_whole, counting, on_engines};

on_engines! {
    a_killed_leader_is_replaced_in_time_and_nothing_is_lost
    a_frozen_leader_that_wakes_does_no_harm
    a_killed_worker_s_tasks_run_elsewhere_and_count_once
    everything_killed_at_once_loses_nothing_that_was_acknowledged
    a_worker_on_engines_drains_when_it_is_told_to
}

fn a_killed_leader_is_replaced_in_time_and_nothing_is_lost(engine: &Engine) {
    let mut mill = Mill::start(engine);
    let mut dice = Dice::new("kill the leader");
    for round in 0..2 {
        let (leader, fence) = mill.leader();
        let other = 1 - leader;
        let id = counting(&mill.managers[other], 40, "0.3");
        pause(dice.millis(0, 3_000));
        mill.managers[leader].kill9();
        let killed = Instant::now();
        let log = |mill: &Mill| mill.managers[other].log().lines().filter_map(super::fence).max();
        within(TAKE_OVER, "another manager leads", || log(&mill).filter(|now| *now > fence));
        println!("round {round}: another led {:?} after the kill", killed.elapsed());
        // Everything is answered meanwhile, and new work is taken.
        let second = counting(&mill.managers[other], 5, "0.1");
        mill.managers[leader].restart();
        check_whole(&mill.managers, &id, 40);
        check_whole(&mill.managers, &second, 5);
    }
    assert!(mill.workers.iter().all(|w| w.process.is_alive()), "workers survive their managers");
}

fn a_frozen_leader_that_wakes_does_no_harm(engine: &Engine) {
    let mill = Mill::start(engine);
    let (leader, fence) = mill.leader();
    let [frozen, other] = [&mill.managers[leader], &mill.managers[1 - leader]];
    let id = counting(frozen, 60, "0.4");
    frozen.until(&id, "succeeded", 8);
    frozen.process().signal(libc::SIGSTOP);
    let log = || other.log().lines().filter_map(super::fence).max();
    within(TAKE_OVER, "another manager leads", || log().filter(|now| *now > fence));
    // The new leader puts statistics into segments that the old one still has in memory.
    other.cli(&["batch", "run", "--array", "1-4", "--", "true"]).ok();
    pause(Duration::from_secs(3));
    frozen.process().signal(libc::SIGCONT);
    for _ in 0..10 {
        let (rows, tasks) = super::rows_of(frozen, &id);
        assert_eq!(rows, tasks, "a row was seen twice by the manager that had been frozen");
    }
    check_whole(&mill.managers, &id, 60);
}

fn a_killed_worker_s_tasks_run_elsewhere_and_count_once(engine: &Engine) {
    let mut mill = Mill::start(engine);
    let mut dice = Dice::new("kill workers");
    for name in ["direct-1", "edge-1"] {
        let id = counting(&mill.managers[0], 40, "0.3");
        pause(dice.millis(200, 2_500));
        let at = mill.workers.iter().position(|w| w.id == name).unwrap();
        mill.workers[at].process.signal(9);
        check_whole(&mill.managers, &id, 40);
        // Its tasks die with it in a test, as they would with their machine.
        drop(mill.workers.remove(at));
    }
}

fn everything_killed_at_once_loses_nothing_that_was_acknowledged(engine: &Engine) {
    let mut mill = Mill::start(engine);
    let mut dice = Dice::new("kill everything");
    let ids: Vec<String> = (0..3).map(|i| counting(&mill.managers[i % 2], 15, "0.2")).collect();
    pause(dice.millis(300, 2_000));
    mill.managers.iter_mut().for_each(tidemill_it::Server::kill9);
    mill.workers.clear();
    mill.managers.iter_mut().for_each(tidemill_it::Server::restart);
    let engines = &engine.variables;
    mill.workers.push(tidemill_it::Worker::start_on_engines(&mill.managers[0], "direct-3", &["--slots", "4"], engines));
    for id in &ids {
        check_whole(&mill.managers, id, 15);
    }
}

fn a_worker_on_engines_drains_when_it_is_told_to(engine: &Engine) {
    let mut mill = Mill::start(engine);
    let id = counting(&mill.managers[0], 30, "0.4");
    mill.managers[0].until(&id, "running", 4);
    let at = mill.workers.iter().position(|w| w.id == "direct-2").unwrap();
    mill.workers[at].process.signal(15);
    assert_eq!(mill.workers[at].wait(), Some(0), "{}", mill.workers[at].log());
    check_whole(&mill.managers, &id, 30);
    assert_eq!(mill.managers[0].job(&id)["attempts"], 30, "what it had was finished or handed back, not failed");
    mill.managers[1].cli(&["fleet", "drain", "direct-1"]).ok();
    eventually("a worker goes that any manager asked to", || (!mill.workers[0].process.is_alive()).then_some(()));
}
