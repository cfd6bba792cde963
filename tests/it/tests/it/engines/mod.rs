//! Two managers and three workers on engines that all of them share: what holds on one machine holds there.
//!
//! Two of the workers speak to the engines themselves and one through the second manager, so that both ways are in every test.

mod check;
mod crashes;
mod credentials;
mod managers;
mod sessions;
mod weather;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidemill_it::{Engine, Options, Server, Worker, eventually};

/// Each test on each kind of engine; where the engine is not there, the test says so.
macro_rules! on_engines {
    ($($name:ident)*) => {
        mod postgres {
            $(#[test]
            fn $name() {
                if let Some(engine) = tidemill_it::Engine::postgres(concat!(module_path!(), "::", stringify!($name))) {
                    super::$name(&engine);
                }
            })*
        }

        mod aws {
            $(#[test]
            fn $name() {
                if let Some(engine) = tidemill_it::Engine::aws(concat!(module_path!(), "::", stringify!($name))) {
                    super::$name(&engine);
                }
            })*
        }
    };
}
pub(crate) use on_engines;

/// Two managers and three workers.
struct Mill {
    managers: [Server; 2],
    workers: Vec<Worker>,
}

impl Mill {
    fn start(engine: &Engine) -> Self {
        Self::start_with(engine, &[])
    }

    /// With these further arguments for every worker.
    fn start_with(engine: &Engine, args: &[&str]) -> Self {
        engine.prepare();
        let mut variables = engine.variables.clone();
        variables.push(("TIDEMILL_LOG_FORMAT".to_owned(), "json".to_owned()));
        let manager = || Server::start(Options { workers: "0..0", variables: variables.clone(), ..Options::default() });
        let managers = [manager(), manager()];
        let slots = [&["--slots", "2"], args].concat();
        let workers = vec![
            Worker::start_on_engines(&managers[0], "direct-1", &slots, &engine.variables),
            Worker::start_on_engines(&managers[0], "direct-2", &slots, &engine.variables),
            Worker::start(&managers[1], "edge-1", &slots),
        ];
        Self { managers, workers }
    }

    /// Which manager leads, and under which fence, by what they have logged.
    fn leader(&self) -> (usize, u64) {
        let last = |server: &Server| server.log().lines().filter_map(fence).max();
        eventually("a manager leads", || {
            let found = [last(&self.managers[0]), last(&self.managers[1])];
            (0..2).filter_map(|i| Some((i, found[i]?))).max_by_key(|(_, fence)| *fence)
        })
    }
}

/// The fence in a line of the log that says who leads.
fn fence(line: &str) -> Option<u64> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "leading the batch system").then(|| line["fence"].as_u64())?
}

/// A job of `n` tasks that each take `seconds` and leave their number behind.
fn counting(server: &Server, n: u64, seconds: &str) -> String {
    let script = format!("sleep {seconds}; echo $1 > \"$2\"");
    let array = format!("1-{n}");
    server.detach(&["--array", &array, "--output-name", "{index}", "--", "sh", "-c", &script, "sh", "{index}", "{out}"])
}

/// Every task has succeeded, counts once, and its result is there, whichever manager is asked.
fn check_whole(servers: &[Server], id: &str, n: u64) {
    for server in servers {
        let job = server.ended(id);
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!((&job["tasks"]["succeeded"], &job["tasks"]["failed"]), (&n.into(), &0.into()), "{job}");
        let want: BTreeMap<String, Vec<u8>> = (1..=n).map(|i| (i.to_string(), format!("{i}\n").into_bytes())).collect();
        assert!(server.results(id) == want, "results differ");
        assert_eq!(rows_of(server, id), (n, n), "statistics of each task, once");
    }
}

/// Rows of successful attempts in the statistics, and distinct tasks among them.
fn rows_of(server: &Server, id: &str) -> (u64, u64) {
    let query = format!("SELECT count(*) AS n, count(DISTINCT task) AS tasks FROM batch.tasks WHERE job = '{id}' AND class = 'ok'");
    let row = &server.sql(&query)[0];
    (row["n"].as_u64().unwrap(), row["tasks"].as_u64().unwrap())
}

/// How soon another manager has to lead: ten seconds, and what a loaded machine adds to them.
const TAKE_OVER: Duration = Duration::from_secs(15);
