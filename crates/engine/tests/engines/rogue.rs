//! Engines that break the protocol.

use std::time::Duration;

use tidemill_engine::{Cause, Engine, Event, Loss};

use crate::support::{block_on, place, tasks, words};

/// How the engine that misbehaves so is lost, and how many results it got through before.
fn lost(how: &str) -> (usize, Loss) {
    block_on(async {
        let mut place = place("rogue_engine");
        place.spec.args = vec![how.into()];
        place.spec.limits.boot = Duration::from_millis(if how == "silent" { 300 } else { 20_000 });
        let mut engine = match Engine::start(&place.spec, "e1").await {
            Ok(engine) => engine,
            Err(loss) => return (0, loss),
        };
        engine.open(1, &std::sync::Arc::new(words("")));
        let mut had = 0;
        loop {
            match engine.event().await {
                Event::Opened { .. } => engine.run(1, false, &tasks(&["a", "b", "c"])),
                Event::Results { outcomes, .. } => had += outcomes.len(),
                Event::Lost(loss) => return (had, loss),
                other @ Event::Refused { .. } => panic!("{other:?}"),
            }
        }
    })
}

#[track_caller]
fn violates(how: &str, had: usize, with: &str) {
    let (got, loss) = lost(how);
    assert_eq!(got, had, "{how}: {loss:?}");
    assert!(matches!(&loss.cause, Cause::Violation(what) if what.contains(with)), "{how}: {loss:?}");
    let open = !matches!(how, "talks-first" | "not-hello" | "newer" | "opens-another" | "talks-later");
    assert_eq!(loss.unfinished.len(), if open { 3 - had } else { 0 }, "{how}: {loss:?}");
}

#[test]
fn what_breaks_the_protocol_is_named() {
    violates("talks-first", 0, "something else writes to its stdout");
    violates("not-hello", 0, "first frame is not HELLO");
    violates("newer", 0, "it speaks version 9");
    violates("opens-another", 0, "OPENED for session 2 where session 1 was next");
    violates("talks-later", 0, "claims");
    violates("wrong-task", 0, "a result for task 1000");
    violates("out-of-order", 0, "a result for task 1 of session 1 where task 0");
    violates("twice", 1, "a result for task 0 of session 1 where task 1");
    violates("oversized", 0, "claims 2147483647 bytes");
}

#[test]
fn an_engine_that_says_nothing_is_given_up() {
    let (_, loss) = lost("silent");
    assert_eq!(loss.cause, Cause::Boot(Duration::from_millis(300)));
}

#[test]
fn an_engine_that_dies_before_it_speaks_is_quoted() {
    let (_, loss) = lost("dies-early");
    assert_eq!(loss.cause, Cause::Exit(3));
    assert!(loss.to_string().ends_with("cannot find the licence file"), "{loss}");
}

#[test]
fn a_stream_that_ends_within_a_frame_keeps_what_was_whole() {
    let (had, loss) = lost("cut-short");
    assert_eq!((had, loss.cause, loss.unfinished), (1, Cause::Exit(0), vec![(1, 1), (1, 2)]));
    let (had, loss) = lost("closes-stdout");
    assert_eq!((had, loss.unfinished.len()), (1, 2));
    assert!(matches!(loss.cause, Cause::Closed | Cause::Signal(9)), "{loss:?}");
}
