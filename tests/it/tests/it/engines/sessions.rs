//! Sessions of the grid while managers die.

use tidemill_it::{Dice, Engine, pause, within};

use super::{Mill, TAKE_OVER, on_engines};
use crate::grid_client::{Client, python};

on_engines! {
    a_client_s_session_outlives_both_managers_in_turn
}

fn a_client_s_session_outlives_both_managers_in_turn(engine: &Engine) {
    let Some(python) = python("a_client_s_session_outlives_both_managers_in_turn") else { return };
    let mut mill = Mill::start_with(engine, &["--python", &python.display().to_string()]);
    let mut dice = Dice::new("kill managers under a client");
    let (leader, _) = mill.leader();
    // The client speaks to the manager that does not lead.
    let asked = 1 - leader;
    let mut client = Client::start(&mill.managers[asked], &python);
    for eighths in [1, 4] {
        client.until(eighths);
        let (leader, fence) = mill.leader();
        mill.managers[leader].kill9();
        let log = |mill: &Mill| mill.managers[1 - leader].log().lines().filter_map(super::fence).max();
        within(TAKE_OVER, "another manager leads", || log(&mill).filter(|now| *now > fence));
        pause(dice.millis(0, 1_000));
        mill.managers[leader].restart();
    }
    client.check(&mill.managers[1 - asked]);
}
