//! What every driver must do, one function per behaviour.
//!
//! Each suite has a macro that holds the list of its behaviours and makes a test of each: `queue_suite!(real, make)`.

pub mod fleet;
pub mod grants;
pub mod ledger;
pub mod objects;
pub mod queue;
pub mod table;

use std::sync::Arc;

use tidemill_base::{ErrorKind, Result};

/// Why a behaviour cannot be tested here: an engine that is not there, or a stand-in's known lie. A test that says so counts as
/// skipped, not as passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip(pub String);

/// What a suite's `make` answers: a driver, or `Result<driver, Skip>` where there may be none.
pub trait Made {
    /// The driver.
    type Driver;

    /// The driver, or why there is none.
    fn driver(self) -> std::result::Result<Self::Driver, Skip>;
}

impl<T: ?Sized> Made for Arc<T> {
    type Driver = Self;

    fn driver(self) -> std::result::Result<Self, Skip> {
        Ok(self)
    }
}

impl<T: ?Sized> Made for std::result::Result<Arc<T>, Skip> {
    type Driver = Arc<T>;

    fn driver(self) -> Self {
        self
    }
}

/// The address of an engine that tests need, from the variable that `cargo xtask stand-ins` sets.
pub fn engine(variable: &str) -> std::result::Result<String, Skip> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    address.ok_or_else(|| Skip(format!("{variable} is not set; `cargo xtask stand-ins up` starts what it names")))
}

/// Expects `answer` to be an error of `kind`; `what` names the call.
#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(kind: ErrorKind, what: &str, answer: Result<T>) {
    match answer {
        Err(e) if e.kind() == kind => assert!(!e.message().is_empty(), "{what}: the error says nothing"),
        other => panic!("{what}: expected {kind:?}, got {other:?}"),
    }
}

/// Makes a test of each behaviour in a list. Called by the suites' macros, not by drivers.
#[doc(hidden)]
#[macro_export]
macro_rules! __behaviours {
    ($suite:ident, real, $make:path, $($name:ident)*) => { $crate::__behaviours!(@ $suite, run_real, $make, $($name)*); };
    ($suite:ident, simulated, $make:path, $($name:ident)*) => { $crate::__behaviours!(@ $suite, run_simulated, $make, $($name)*); };
    (@ $suite:ident, $run:ident, $make:path, $($name:ident)*) => { $(
        #[test]
        fn $name() {
            $crate::$run(async |h: &$crate::Harness| {
                h.begin(stringify!($suite), module_path!(), stringify!($name));
                let driver = match $crate::suites::Made::driver($make(h).await) {
                    Ok(driver) => driver,
                    Err(why) => return h.skipped(&why),
                };
                if let Err(e) = $crate::suites::$suite::$name(&driver, h).await {
                    panic!("a call failed that should not have: {e:?}");
                }
            });
        }
    )* };
    ($suite:ident, list, $($name:ident)*) => { &[$(stringify!($name)),*] };
}

#[cfg(test)]
mod tests {
    /// Compares the public functions in `sources` with the behaviours that the suite's macro lists.
    fn listed(suite: &str, sources: &[&str], list: &[&str]) {
        let mut found: Vec<&str> =
            sources.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next()).collect();
        let mut listed = list.to_vec();
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(found, listed, "the list in {suite}_suite! and its functions differ");
    }

    #[test]
    fn every_behaviour_is_listed() {
        let queue = [
            include_str!("queue/basics.rs"),
            include_str!("queue/leases.rs"),
            include_str!("queue/dead.rs"),
            include_str!("queue/waiting.rs"),
        ];
        listed("queue", &queue, crate::queue_suite!(list));
        let table = [include_str!("table/writes.rs"), include_str!("table/reads.rs"), include_str!("table/feed.rs")];
        listed("table", &table, crate::table_suite!(list));
        listed("ledger", &[include_str!("ledger.rs")], crate::ledger_suite!(list));
        listed("grants", &[include_str!("grants.rs")], crate::grants_suite!(list));
        listed("fleet", &[include_str!("fleet.rs")], crate::fleet_suite!(list));
        let objects = [include_str!("objects/basics.rs"), include_str!("objects/listing.rs"), include_str!("objects/multipart.rs")];
        listed("objects", &objects, crate::objects_suite!(list));
    }
}
