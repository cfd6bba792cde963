//! Waiting for things that take their time: generous limits, since machines that run tests are loaded.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Lets time pass.
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Looks until there is something, and says how long that took. Panics with `what` when [`PATIENCE`] runs out.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look).0
}

/// As [`eventually`] with a limit of its own; also says how long it took.
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return (found, start.elapsed());
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        pause(LOOK_EVERY);
    }
}

/// Panics unless both are equal, and says what was compared.
#[track_caller]
pub(crate) fn same<T: PartialEq + Debug>(what: &str, got: T, want: T) {
    assert_eq!(got, want, "{what}");
}
