//! Which engine stands behind each block, and how the engines are reached.
//!
//! What a job is made of (ledger, queue, table) is one picture: either it is all in the data folder, which belongs to one process, or all
//! of it is on engines, and then any number of managers may work on it. A half of each would let a second manager see half a job, so it is
//! refused here and not found out later.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

/// `[drivers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DriversSection {
    /// The engine behind every block that says nothing else below: `embedded` (the data folder), `postgres`, or `aws` (S3, SQS, DynamoDB, STS;
    /// the ledger is then in PostgreSQL, which is what RDS is).
    pub default: String,
    /// Objects: `embedded`, `postgres` or `aws`; empty: the default.
    pub objects: String,
    /// Queues: `embedded`, `postgres` or `aws`; empty: the default.
    pub queue: String,
    /// The table of work in progress: `embedded`, `postgres` or `aws`; empty: the default.
    pub table: String,
    /// Jobs, users, audit: `embedded` or `postgres`; empty: the default, and `postgres` when that is `aws`.
    pub ledger: String,
    /// Who issues temporary credentials: `embedded` (signed with a key in the data folder), `postgres` (signed with a key that all managers
    /// share) or `aws` (STS); empty: the default.
    pub grants: String,
    /// Where groups of workers run: `local` (processes of this machine), `command` (a program of yours starts and stops them), `aws` (EC2 Auto
    /// Scaling) or `none` (others start workers); empty: `none` when the default is `aws`, else `local`.
    pub fleet: String,
}

impl Default for DriversSection {
    fn default() -> Self {
        let unset = String::new;
        Self {
            default: "embedded".to_owned(),
            objects: unset(),
            queue: unset(),
            table: unset(),
            ledger: unset(),
            grants: unset(),
            fleet: unset(),
        }
    }
}

/// `[postgres]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PostgresSection {
    /// Where the database is: `postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full`. Never shown with its password.
    pub url: DatabaseUrl,
    /// Connections that one process holds at most.
    pub pool: u32,
    /// The schema that everything is in. Installations that share a database have one each.
    pub schema: String,
    /// File of the certificates in PEM that the database's is checked against; empty: the web's authorities, where `sslmode` asks for a check.
    pub ca: PathBuf,
}

impl Default for PostgresSection {
    fn default() -> Self {
        Self { url: DatabaseUrl::default(), pool: 16, schema: "tidemill".to_owned(), ca: PathBuf::new() }
    }
}

/// `[aws]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AwsSection {
    /// The region; empty: what the environment says, as for every AWS program.
    pub region: String,
    /// URL of a compatible service in place of AWS; empty: AWS itself.
    pub endpoint: String,
    /// What names of queues and tables begin with, 1 to 20 of a-z, 0-9 and -. Installations that share an account have one each.
    pub prefix: String,
    /// The bucket that objects are in.
    pub bucket: String,
    /// The role that temporary credentials are drawn from, for `grants = "aws"`.
    pub role_arn: String,
}

impl Default for AwsSection {
    fn default() -> Self {
        let unset = String::new;
        Self { region: unset(), endpoint: unset(), prefix: "tidemill".to_owned(), bucket: unset(), role_arn: unset() }
    }
}

/// A database's URL, which may hold a password: printed it has none.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL with its password, for the driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for DatabaseUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What stands in a password's place.
const HIDDEN: &str = "***";

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut url) = reqwest::Url::parse(&self.0) else {
            // Not a URL, so it cannot be told where a password would be.
            return f.write_str(if self.0.is_empty() { "" } else { HIDDEN });
        };
        if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
            return f.write_str(HIDDEN);
        }
        if url.query_pairs().any(|(key, _)| key.to_ascii_lowercase().contains("password")) {
            url.set_query(Some(HIDDEN));
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A setting's value as it may be shown: without the secrets in it. `value` is TOML, as `Layers::listing` has it.
pub fn shown(key: &str, value: &str) -> String {
    if key == "grid.source" && value != "[]" {
        return HIDDEN.to_owned();
    }
    if key != "postgres.url" {
        return value.to_owned();
    }
    let text = value.trim_matches(|c| c == '"' || c == '\'');
    format!("\"{}\"", DatabaseUrl::from(text))
}

/// What stands behind a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The data folder of one process.
    Embedded,
    /// A PostgreSQL database.
    Postgres,
    /// AWS, or a service that speaks like it.
    Aws,
}

impl Driver {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
            Self::Aws => "aws",
        }
    }

    /// Whether other processes can reach what it holds.
    pub const fn is_engine(self) -> bool {
        !matches!(self, Self::Embedded)
    }

    fn parse(key: &str, text: &str, allowed: &[Self]) -> Result<Self> {
        allowed.iter().copied().find(|d| d.as_str() == text).ok_or_else(|| {
            let words: Vec<_> = allowed.iter().map(|d| format!("`{}`", d.as_str())).collect();
            Error::invalid(format!("drivers.{key} `{}` is none of {}", text.escape_debug(), words.join(", ")))
        })
    }
}

/// Where groups of workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetDriver {
    /// Processes of this machine.
    Local,
    /// What a program of the user's starts and stops.
    Command,
    /// EC2 Auto Scaling.
    Aws,
    /// Nowhere: others start workers.
    None,
}

impl FleetDriver {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Command => "command",
            Self::Aws => "aws",
            Self::None => "none",
        }
    }
}

/// Which driver each block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Objects.
    pub objects: Driver,
    /// Queues.
    pub queue: Driver,
    /// The table.
    pub table: Driver,
    /// The ledger.
    pub ledger: Driver,
    /// Temporary credentials.
    pub grants: Driver,
    /// Groups of workers.
    pub fleet: FleetDriver,
}

const ANY: &[Driver] = &[Driver::Embedded, Driver::Postgres, Driver::Aws];

impl DriversSection {
    /// Every block's driver. `Invalid` for words that are none, and for blocks that do not go together.
    pub fn plan(&self) -> Result<Plan> {
        let default = Driver::parse("default", &self.default, ANY)?;
        let pick = |key: &str, own: &str, allowed: &[Driver], default: Driver| {
            if own.is_empty() { Ok(default) } else { Driver::parse(key, own, allowed) }
        };
        let records = if default == Driver::Aws { Driver::Postgres } else { default };
        let plan = Plan {
            objects: pick("objects", &self.objects, ANY, default)?,
            queue: pick("queue", &self.queue, ANY, default)?,
            table: pick("table", &self.table, ANY, default)?,
            ledger: pick("ledger", &self.ledger, &[Driver::Embedded, Driver::Postgres], records)?,
            grants: pick("grants", &self.grants, ANY, default)?,
            fleet: self.fleet(default)?,
        };
        plan.check()?;
        Ok(plan)
    }

    fn fleet(&self, default: Driver) -> Result<FleetDriver> {
        match self.fleet.as_str() {
            "" if default == Driver::Aws => Ok(FleetDriver::None),
            "" | "local" | "embedded" => Ok(FleetDriver::Local),
            "command" => Ok(FleetDriver::Command),
            "aws" => Ok(FleetDriver::Aws),
            "none" => Ok(FleetDriver::None),
            other => Err(Error::invalid(format!("drivers.fleet `{}` is none of `local`, `command`, `aws`, `none`", other.escape_debug()))),
        }
    }
}

impl Plan {
    /// Whether several managers may work on these blocks at once: nothing of a job is in one process's folder.
    pub const fn is_shared(&self) -> bool {
        self.ledger.is_engine()
    }

    /// Whether any block is behind `driver`.
    pub fn uses(&self, driver: Driver) -> bool {
        self.named().iter().any(|(_, d)| *d == driver) || (driver == Driver::Aws && self.fleet == FleetDriver::Aws)
    }

    /// The blocks by their words.
    pub const fn named(&self) -> [(&'static str, Driver); 5] {
        [("objects", self.objects), ("queue", self.queue), ("table", self.table), ("ledger", self.ledger), ("grants", self.grants)]
    }

    fn check(&self) -> Result<()> {
        let side = |d: Driver| if d.is_engine() { "on an engine" } else { "in the data folder" };
        for (name, driver) in [("queue", self.queue), ("table", self.table)] {
            if driver.is_engine() != self.ledger.is_engine() {
                return Err(Error::invalid(format!(
                    "drivers.{name} is `{}` ({}) and drivers.ledger is `{}` ({}); ledger, queue and table are one picture of a job and go \
                     together: put all three into the data folder, or all three on engines",
                    driver.as_str(),
                    side(driver),
                    self.ledger.as_str(),
                    side(self.ledger)
                )));
            }
        }
        if self.is_shared() && !self.objects.is_engine() {
            return Err(Error::invalid(format!(
                "drivers.objects is `embedded` and drivers.ledger is `{}`; objects in one manager's data folder are out of the others' reach: \
                 set drivers.objects to `postgres` or `aws`",
                self.ledger.as_str()
            )));
        }
        self.check_grants()
    }

    fn check_grants(&self) -> Result<()> {
        match self.grants {
            Driver::Embedded if self.is_shared() => Err(Error::invalid(
                "drivers.grants is `embedded` and the other blocks are on engines; a key in one manager's data folder signs what the others \
                 refuse: set drivers.grants to `postgres`, or to `aws` with objects in S3",
            )),
            Driver::Aws if self.objects != Driver::Aws => Err(Error::invalid(format!(
                "drivers.grants is `aws` and drivers.objects is `{}`; a credential of STS reaches objects in S3 alone: set drivers.grants to \
                 `postgres` or `embedded`, or drivers.objects to `aws`",
                self.objects.as_str()
            ))),
            _ => Ok(()),
        }
    }
}

impl PostgresSection {
    pub(super) fn check(&self) -> Result<()> {
        if self.url.expose().is_empty() {
            return Err(Error::invalid(
                "postgres.url is not set and a driver needs it; set it in the configuration file, or as TIDEMILL_POSTGRES_URL: \
                 postgres://USER:PASSWORD@HOST:5432/DATABASE",
            ));
        }
        if !(1..=1000).contains(&self.pool) {
            return Err(Error::invalid(format!("postgres.pool {} is not between 1 and 1000", self.pool)));
        }
        Ok(())
    }
}

impl AwsSection {
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        if plan.objects == Driver::Aws && self.bucket.is_empty() {
            return Err(Error::invalid("aws.bucket is not set and drivers.objects is `aws`; name the bucket that objects go into"));
        }
        if plan.grants == Driver::Aws && self.role_arn.is_empty() {
            return Err(Error::invalid(
                "aws.role-arn is not set and drivers.grants is `aws`; name the role that temporary credentials are drawn from",
            ));
        }
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.prefix.is_empty() || self.prefix.len() > 20 || !self.prefix.bytes().all(fits) {
            return Err(Error::invalid(format!("aws.prefix `{}` is not 1 to 20 of a-z, 0-9 and -", self.prefix.escape_debug())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drivers(edit: impl FnOnce(&mut DriversSection)) -> Result<Plan> {
        let mut section = DriversSection::default();
        edit(&mut section);
        section.plan()
    }

    #[test]
    fn a_word_for_all_and_words_of_their_own() {
        let plan = drivers(|_| {}).unwrap();
        assert!(plan.named().iter().all(|(_, d)| *d == Driver::Embedded) && plan.fleet == FleetDriver::Local);
        assert!(!plan.is_shared() && !plan.uses(Driver::Postgres));

        let plan = drivers(|d| d.default = "postgres".into()).unwrap();
        assert!(plan.named().iter().all(|(_, d)| *d == Driver::Postgres) && plan.is_shared() && !plan.uses(Driver::Embedded));

        let plan = drivers(|d| d.default = "aws".into()).unwrap();
        assert_eq!((plan.objects, plan.queue, plan.table, plan.grants), (Driver::Aws, Driver::Aws, Driver::Aws, Driver::Aws));
        assert_eq!((plan.ledger, plan.fleet), (Driver::Postgres, FleetDriver::None), "RDS is PostgreSQL");

        let plan = drivers(|d| (d.default, d.queue, d.fleet) = ("postgres".into(), "aws".into(), "none".into())).unwrap();
        assert!(plan.queue == Driver::Aws && plan.table == Driver::Postgres && plan.uses(Driver::Aws) && plan.is_shared());

        let plan = drivers(|d| d.objects = "aws".into()).unwrap();
        assert!(!plan.is_shared(), "a laptop may keep its objects in S3");
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_way_out() {
        let refused = |edit: fn(&mut DriversSection), words: &[&str]| {
            let e = drivers(edit).unwrap_err();
            assert!(words.iter().all(|w| e.message().contains(w)), "{e}");
        };
        refused(|d| d.queue = "aws".into(), &["drivers.queue is `aws`", "drivers.ledger is `embedded`", "all three"]);
        refused(|d| d.ledger = "postgres".into(), &["drivers.queue is `embedded`", "`postgres`"]);
        refused(|d| (d.default, d.table) = ("postgres".into(), "embedded".into()), &["drivers.table is `embedded`"]);
        refused(|d| (d.default, d.objects) = ("postgres".into(), "embedded".into()), &["drivers.objects is `embedded`", "`aws`"]);
        refused(|d| (d.default, d.grants) = ("postgres".into(), "embedded".into()), &["drivers.grants is `embedded`"]);
        refused(|d| (d.default, d.grants) = ("postgres".into(), "aws".into()), &["STS", "drivers.objects is `postgres`"]);
        refused(|d| d.ledger = "aws".into(), &["drivers.ledger `aws` is none of `embedded`, `postgres`"]);
        refused(|d| d.default = "mysql".into(), &["drivers.default `mysql`"]);
        refused(|d| d.fleet = "slurm".into(), &["drivers.fleet `slurm`", "`command`"]);
    }

    #[test]
    fn a_password_is_never_shown() {
        for (url, want) in [
            ("postgres://ada:hunter2@db:5432/mill?sslmode=require", "postgres://ada:***@db:5432/mill?sslmode=require"),
            ("postgres://ada@db/mill?password=hunter2", "postgres://ada@db/mill?***"),
            ("host=db password=hunter2", "***"),
            ("postgres://ada@db/mill", "postgres://ada@db/mill"),
            ("", ""),
        ] {
            let secret = DatabaseUrl::from(url);
            assert_eq!(secret.to_string(), want);
            assert_eq!(format!("{secret:?}"), format!("\"{want}\""));
            assert_eq!(shown("postgres.url", &format!("\"{url}\"")), format!("\"{want}\""));
        }
        assert_eq!(shown("grid.source", "[{ url = \"postgres://ada:hunter2@db/mill\" }]"), "***");
        assert_eq!(shown("postgres.schema", "\"mill\""), "\"mill\"");
        let section = PostgresSection { url: "postgres://ada:hunter2@db/mill".into(), ..PostgresSection::default() };
        assert!(!format!("{section:?}").contains("hunter2"));
    }
}
