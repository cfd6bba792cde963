//! Engines that throttle, fail, lose answers, give messages twice, take credentials for expired, and go away.

use std::time::Duration;

use tidemill_it::{Engine, Weather, pause};

use super::{Mill, check_whole, counting};

const TASKS: u64 = 120;

/// A relay in front of the database, and the engine that goes through it.
fn behind_relay(engine: &Engine) -> (Weather, Engine) {
    let (scheme, rest) = engine.variable("TIDEMILL_POSTGRES_URL").split_once("://").unwrap();
    let (user, rest) = rest.split_once('@').unwrap();
    let (host, database) = rest.split_once('/').unwrap();
    let weather = Weather::of_connections(host);
    let url = format!("{scheme}://{user}@{}/{database}", weather.address());
    (weather, engine.with("TIDEMILL_POSTGRES_URL", &url))
}

#[test]
fn a_database_that_goes_away_and_comes_back_costs_time_alone() {
    let Some(engine) = Engine::postgres("a database that goes away") else { return };
    let (weather, engine) = behind_relay(&engine);
    let mill = Mill::start(&engine);
    let id = counting(&mill.managers[0], TASKS, "0.2");
    for span in [1, 4, 12] {
        pause(Duration::from_secs(2));
        weather.outage(Duration::from_secs(span));
    }
    check_whole(&mill.managers, &id, TASKS);
    assert!(mill.workers.iter().all(|w| w.process.is_alive()), "workers survive an outage");
    // And what is submitted after it is work as any other.
    let later = counting(&mill.managers[1], 5, "0.1");
    check_whole(&mill.managers, &later, 5);
}

#[test]
fn throttles_errors_lost_answers_and_expired_credentials_cost_time_alone() {
    let Some(engine) = Engine::aws("bad weather on the way to AWS") else { return };
    let endpoint = engine.variable("TIDEMILL_AWS_ENDPOINT").trim_start_matches("http://").trim_end_matches('/').to_owned();
    // Queues and tables are made in fair weather: what is measured against it is the work.
    engine.prepare();
    let weather = Weather::of_requests(&endpoint);
    let (relay, engine) = behind_relay(&engine.with("TIDEMILL_AWS_ENDPOINT", &format!("http://{}", weather.address())));
    let mill = Mill::start(&engine);
    let ids: Vec<String> = (0..3).map(|n| counting(&mill.managers[n % 2], TASKS, "0.1")).collect();
    pause(Duration::from_secs(3));
    relay.outage(Duration::from_secs(2));
    weather.expire(Duration::from_secs(6));
    let after = counting(&mill.managers[1], 20, "0.1");
    check_whole(&mill.managers, &after, 20);
    for id in &ids {
        check_whole(&mill.managers, id, TASKS);
    }
    assert!(mill.workers.iter().all(|w| w.process.is_alive()), "workers survive credentials that expire");
    let (passed, faults) = weather.seen();
    assert!(faults >= 20, "{faults} faults among {passed} requests are no weather");
    weather.calm();
    let later = counting(&mill.managers[0], 5, "0.1");
    check_whole(&mill.managers, &later, 5);
}
