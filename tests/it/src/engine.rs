//! Engines that the environment names: a place of a test's own on each.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::call::Call;
use crate::skip::skipped;

/// A database, such as `postgres://postgres@127.0.0.1:5499/postgres`.
const POSTGRES: &str = "TIDEMILL_TEST_POSTGRES";
/// An endpoint that speaks like AWS and checks who is asking, such as `http://127.0.0.1:4566`.
const MINISTACK: &str = "TIDEMILL_TEST_MINISTACK";

/// What managers and workers are told to work on the same engines.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Its drivers' word in the configuration.
    pub driver: &'static str,
    /// Variables for all of them.
    pub variables: Vec<(String, String)>,
}

/// A name that no other test has, now or in an earlier run on the same engine.
fn fresh_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("it{:x}{:x}", now / 1000 % 0xFFFF_FFFF_FFFF, std::process::id() & 0xFFF)
}

fn variable(name: &str, test: &str) -> Option<String> {
    let found = std::env::var(name).ok().filter(|v| !v.is_empty());
    if found.is_none() {
        skipped(test, &format!("{name} is not set; `cargo xtask stand-ins up` starts what it names"));
    }
    found
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

impl Engine {
    /// Everything in a schema of its own. `None`, said aloud, where there is no database.
    pub fn postgres(test: &str) -> Option<Self> {
        let url = variable(POSTGRES, test)?;
        let name = fresh_name();
        let variables = pairs([
            ("TIDEMILL_DRIVERS_DEFAULT", "postgres"),
            ("TIDEMILL_POSTGRES_URL", url.as_str()),
            ("TIDEMILL_POSTGRES_SCHEMA", name.as_str()),
            ("TIDEMILL_POSTGRES_POOL", "8"),
        ]);
        Some(Self { driver: "postgres", variables })
    }

    /// Queue, table and objects under a prefix and in a bucket of their own, the ledger in a schema of its own. `None`, said aloud, where one
    /// of the two is missing.
    pub fn aws(test: &str) -> Option<Self> {
        let (endpoint, url) = (variable(MINISTACK, test)?, variable(POSTGRES, test)?);
        let name = fresh_name();
        let variables = pairs([
            ("TIDEMILL_DRIVERS_DEFAULT", "aws"),
            ("TIDEMILL_DRIVERS_GRANTS", "postgres"),
            ("TIDEMILL_POSTGRES_URL", url.as_str()),
            ("TIDEMILL_POSTGRES_SCHEMA", name.as_str()),
            ("TIDEMILL_POSTGRES_POOL", "8"),
            ("TIDEMILL_AWS_ENDPOINT", endpoint.as_str()),
            ("TIDEMILL_AWS_REGION", "us-east-1"),
            ("TIDEMILL_AWS_PREFIX", name.as_str()),
            ("TIDEMILL_AWS_BUCKET", name.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]);
        Some(Self { driver: "aws", variables })
    }

    /// Makes what is missing there.
    #[track_caller]
    pub fn prepare(&self) {
        let folder = tempfile::tempdir().expect("a folder for the test can be made");
        self.call(folder.path(), &["check", "--create"]).run().ok();
    }

    /// A call of the command line with the engines' variables and this data folder.
    pub fn call(&self, data: &Path, args: &[&str]) -> Call {
        let data = data.to_string_lossy().into_owned();
        let all: Vec<&str> = ["--data", data.as_str()].into_iter().chain(args.iter().copied()).collect();
        Call::new(&all).envs(&self.variables)
    }

    /// What they are told with one variable.
    #[track_caller]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).expect("a variable of the engine")
    }

    /// The same engines, with this said otherwise.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.variables.retain(|(known, _)| known != name);
        changed.variables.push((name.to_owned(), value.to_owned()));
        changed
    }
}
