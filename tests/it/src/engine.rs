//! Engines that the environment names: a place of a test's own on each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::call::Call;
use crate::skip::skipped;
use crate::weather::Weather;

/// A database, such as `postgres://postgres@127.0.0.1:5499/postgres`.
const POSTGRES: &str = "TIDEMILL_TEST_POSTGRES";
/// An endpoint that speaks like AWS and checks who is asking, such as `http://127.0.0.1:4566`.
const MINISTACK: &str = "TIDEMILL_TEST_MINISTACK";

/// What [`Engine::objects`] counts, bytes.
const LARGE: u64 = 100_000;
/// The drivers that the whole suite runs on: `postgres`, `aws`, or embedded ones if it is not set.
const SUITE: &str = "TIDEMILL_IT_DRIVERS";

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

/// Whether the whole suite runs on engines.
pub fn on_engines() -> bool {
    std::env::var(SUITE).is_ok_and(|d| !d.is_empty())
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

    /// A fresh place on the engines that the whole suite runs on; `None` if those are embedded, or the test has chosen its own.
    #[track_caller]
    pub(crate) fn of_suite(chosen: &[(String, String)], calm: bool) -> Option<Self> {
        let drivers = std::env::var(SUITE).ok().filter(|d| !d.is_empty())?;
        if chosen.iter().any(|(name, _)| name == "TIDEMILL_DRIVERS_DEFAULT") {
            return None;
        }
        let engine = match drivers.as_str() {
            "postgres" => Self::postgres(SUITE),
            "aws" => Self::aws(SUITE),
            other => panic!("{SUITE}={other}: it is `postgres` or `aws`"),
        };
        let engine = engine.unwrap_or_else(|| panic!("{SUITE}={drivers}: the engine is not there"));
        engine.prepare();
        // With AWS the usual fleet is elsewhere; here it is this machine's.
        let engine = engine.with("TIDEMILL_DRIVERS_FLEET", "local");
        Some(if calm { engine } else { engine.in_weather() })
    }

    /// Behind a relay that makes requests of AWS fail now and then; a database is reached as it is.
    fn in_weather(self) -> Self {
        if self.driver != "aws" {
            return self;
        }
        let endpoint = self.variable("TIDEMILL_AWS_ENDPOINT").trim_start_matches("http://").trim_end_matches('/').to_owned();
        let weather = Weather::of_requests(&endpoint);
        self.with("TIDEMILL_AWS_ENDPOINT", &format!("http://{}", weather.address()))
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

    /// How many large objects lie in its place there, as the engine's own tools count them: embedded drivers keep only those as files.
    #[track_caller]
    pub(crate) fn objects(&self) -> usize {
        let mut command = match self.driver {
            "postgres" => {
                let mut psql = Command::new("psql");
                let schema = self.variable("TIDEMILL_POSTGRES_SCHEMA");
                let count = format!("SELECT count(*) FROM \"{schema}\".tidemill_objects WHERE size >= {LARGE}");
                psql.args([self.variable("TIDEMILL_POSTGRES_URL"), "--no-align", "--tuples-only", "--command", &count]);
                psql
            }
            _ => {
                let mut aws =
                    Command::new(aws_command().expect("awscli; `cargo test -p tidemill-server --test s3_clients` installs it once"));
                aws.args(["--endpoint-url", self.variable("TIDEMILL_AWS_ENDPOINT"), "--region", "us-east-1"]);
                aws.args(["s3", "ls", "--recursive", &format!("s3://{}", self.variable("TIDEMILL_AWS_BUCKET"))]);
                aws
            }
        };
        let done = command.envs(self.variables.iter().cloned()).output().expect("the engine's own tool starts");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        // `aws s3 ls` fails where there is nothing.
        assert!(done.status.success() || text.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        match self.driver {
            "postgres" => text.trim().parse().expect("a number"),
            // Date, time, size, name.
            _ => text.lines().filter(|l| l.split_whitespace().nth(2).and_then(|n| n.parse().ok()) >= Some(LARGE)).count(),
        }
    }
}

/// The `aws` command that the server's own S3 tests have installed.
pub fn aws_command() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("tidemill/venv-s3/bin/aws")).filter(|f| f.is_file())
}
