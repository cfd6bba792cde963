//! The server's settings: defaults in code, one section a concern. Layered by `tidemill_runtime::Layers`, so that every key can be set in
//! `tidemill.toml`, as `TIDEMILL_SECTION_KEY`, or by a flag. An empty text means "not set", since every key has to have a value to be
//! known.

mod archive;
mod drivers;
mod grid;
mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use tidemill_base::{ByteSize, Error, HumanDuration, Result};
use tidemill_runtime::LogFormat;

pub use archive::ArchiveSection;
pub use drivers::{AwsSection, DatabaseUrl, Driver, DriversSection, FleetDriver, Plan, PostgresSection, shown};
pub use grid::{GridSection, SourceSection};
pub use sql::SqlSection;

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ServerConfig {
    /// Where it listens and keeps its data.
    pub server: ServerSection,
    /// Which engine stands behind each block.
    pub drivers: DriversSection,
    /// The database, for the drivers that need one.
    pub postgres: PostgresSection,
    /// AWS, for the drivers that need it.
    pub aws: AwsSection,
    /// Certificates.
    pub tls: TlsSection,
    /// Sessions and tokens.
    pub auth: AuthSection,
    /// What one caller may ask for.
    pub limits: LimitsSection,
    /// What statements in SQL, and those who send them, may use.
    pub sql: SqlSection,
    /// Jobs and what is left of them.
    pub batch: BatchSection,
    /// Engines, and databases that tasks are made from.
    pub grid: GridSection,
    /// Sessions of the grid in cold storage.
    pub archive: ArchiveSection,
    /// Objects that nobody asks for any more.
    pub objects: ObjectsSection,
    /// Local groups of workers, and how they scale.
    pub fleet: FleetSection,
    /// Logs.
    pub log: LogSection,
    /// Traces.
    pub telemetry: TelemetrySection,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ServerSection {
    /// The data folder.
    pub data: PathBuf,
    /// Address and port of the HTTP listener.
    pub listen: String,
    /// Address and port of the SQL listener (PostgreSQL's protocol); empty: none.
    pub sql_listen: String,
    /// Address and port of the S3 listener; empty: none.
    pub s3_listen: String,
    /// URL that S3 clients are told to speak to, for behind a proxy or under a name; empty: the S3 listener's address.
    pub s3_url: String,
    /// Listens beyond loopback without TLS. Only for behind a proxy that speaks TLS.
    pub insecure: bool,
    /// How long draining may take before what is left is let go of.
    pub drain_timeout: HumanDuration,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            data: PathBuf::from("tidemill-data"),
            listen: "127.0.0.1:8080".to_owned(),
            sql_listen: String::new(),
            s3_listen: String::new(),
            s3_url: String::new(),
            insecure: false,
            drain_timeout: seconds(30),
        }
    }
}

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TlsSection {
    /// File of the certificate chain in PEM; empty: none.
    pub cert: PathBuf,
    /// File of its private key in PEM; empty: none.
    pub key: PathBuf,
    /// Generates a certificate into the data folder, once, if none is given.
    pub generate: bool,
    /// Further host names and addresses for a generated certificate.
    pub names: Vec<String>,
}

/// `[auth]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AuthSection {
    /// How long a session of the console lasts.
    pub session_ttl: HumanDuration,
}

impl Default for AuthSection {
    fn default() -> Self {
        Self { session_ttl: seconds(12 * 3600) }
    }
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LimitsSection {
    /// The largest body of an ordinary request.
    #[serde(serialize_with = "as_text")]
    pub max_body: ByteSize,
    /// The largest body between worker and manager: a batch of messages or writes, an object put whole, one part of an upload.
    #[serde(serialize_with = "as_text")]
    pub max_worker_body: ByteSize,
    /// Connections at once; more have to wait.
    pub max_connections: u32,
    /// How long a connection may take to send a request's headers, and to shake hands; and how long it may be idle between two requests.
    pub header_timeout: HumanDuration,
    /// How long an ordinary request may take. Waiting for events and streaming are not counted.
    pub request_timeout: HumanDuration,
    /// Requests a second for each token, or each address without one; twice as many at once. Zero: no limit.
    pub requests_per_second: u32,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            max_body: ByteSize(16 << 20),
            max_worker_body: ByteSize(64 << 20),
            max_connections: 4096,
            header_timeout: seconds(10),
            request_timeout: seconds(30),
            requests_per_second: 500,
        }
    }
}

/// `[batch]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BatchSection {
    /// Jobs that ended longer ago are deleted with results, logs and statistics; zero: they stay until somebody deletes them.
    pub keep: HumanDuration,
    /// Statistics wait for so long at most before they are written as a segment. Shorter: less memory; longer: fewer, larger segments.
    pub segment_age: HumanDuration,
    /// A range of tasks that was delivered so often without being finished is taken apart, task by task.
    pub max_receives: u32,
}

impl Default for BatchSection {
    fn default() -> Self {
        Self { keep: seconds(0), segment_age: seconds(30), max_receives: 5 }
    }
}

impl BatchSection {
    /// How long jobs are kept; `None`: for good.
    pub fn keep(&self) -> Option<Duration> {
        (!self.keep.0.is_zero()).then_some(self.keep.0)
    }

    fn check(&self) -> Result<()> {
        if self.segment_age.0 < Duration::from_secs(1) {
            return Err(Error::invalid("batch.segment-age must be at least 1s"));
        }
        if !(1..=1000).contains(&self.max_receives) {
            return Err(Error::invalid(format!("batch.max-receives {} is not between 1 and 1000", self.max_receives)));
        }
        Ok(())
    }
}

/// `[objects]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ObjectsSection {
    /// Multipart uploads that nothing was added to for so long are given up and their parts removed.
    pub keep_uploads: HumanDuration,
}

impl Default for ObjectsSection {
    fn default() -> Self {
        Self { keep_uploads: seconds(7 * 24 * 3600) }
    }
}

/// `[fleet]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FleetSection {
    /// Workers of class `default`: `MIN..MAX`, or one number for just so many.
    pub workers: String,
    /// The program that starts and stops workers, for `drivers.fleet = "command"`.
    pub command: PathBuf,
    /// Tasks that one local worker runs at once; zero: as many as the machine has processors.
    pub slots: u32,
    /// Memory that one local worker has for tasks; zero: three quarters of the machine's.
    #[serde(serialize_with = "as_text")]
    pub memory: ByteSize,
    /// The backlog should be worked off within this.
    pub target: HumanDuration,
    /// The group shrinks when the need has been lower for so long.
    pub shrink_cooldown: HumanDuration,
    /// Price of a slot for an hour, in whatever currency; for reports.
    pub price_per_slot_hour: f64,
    /// Groups of local workers of classes other than `default`, each a `[[fleet.group]]` with `class`, `workers` and, where they differ from
    /// what is said above of zero, `slots`, `memory` and named resources such as `offers = { gpu = 1 }`.
    pub group: Vec<GroupSection>,
}

/// `[[fleet.group]]`: local workers of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GroupSection {
    /// The class of work that they take.
    pub class: String,
    /// `MIN..MAX`, or one number for just so many.
    pub workers: String,
    /// Tasks that one of them runs at once; zero: as many as the machine has processors.
    #[serde(default)]
    pub slots: u32,
    /// Memory that one of them has for tasks; zero: three quarters of the machine's.
    #[serde(default, serialize_with = "as_text")]
    pub memory: ByteSize,
    /// Named resources that one of them offers, and how much of each.
    #[serde(default)]
    pub offers: BTreeMap<String, u64>,
}

/// The class of the group that `fleet.workers` speaks of, and of jobs that name none.
pub const DEFAULT_CLASS: &str = "default";

impl Default for FleetSection {
    fn default() -> Self {
        Self {
            workers: "0..1".to_owned(),
            command: PathBuf::new(),
            slots: 0,
            memory: ByteSize(0),
            target: seconds(60),
            shrink_cooldown: seconds(60),
            price_per_slot_hour: 0.04,
            group: Vec::new(),
        }
    }
}

impl FleetSection {
    /// Every group: the default one first.
    pub fn groups(&self) -> Vec<GroupSection> {
        let (class, workers) = (DEFAULT_CLASS.to_owned(), self.workers.clone());
        let default = GroupSection { class, workers, slots: self.slots, memory: self.memory, offers: BTreeMap::new() };
        std::iter::once(default).chain(self.group.iter().cloned()).collect()
    }

    fn check(&self) -> Result<()> {
        let mut classes = BTreeSet::new();
        for group in self.groups() {
            group.bounds()?;
            let class = &group.class;
            if class.is_empty() || class.len() > 40 || !class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                let shown = class.escape_debug();
                return Err(Error::invalid(format!("fleet.group: class `{shown}` is not 1 to 40 of a-z, 0-9 and -")));
            }
            if !classes.insert(class.clone()) {
                let what = if class == DEFAULT_CLASS { "is what `fleet.workers` speaks of" } else { "is there twice" };
                return Err(Error::invalid(format!("fleet.group: class `{class}` {what}; give each class one group")));
            }
        }
        Ok(())
    }
}

impl GroupSection {
    /// The least and the most workers.
    pub fn bounds(&self) -> Result<(u32, u32)> {
        let text = self.workers.trim();
        let wrong = || Error::invalid(format!("workers `{text}` is not MIN..MAX with MIN no more than MAX; write it like 0..8, or 4"));
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (min, max): (u32, u32) = (min.parse().map_err(|_| wrong())?, max.parse().map_err(|_| wrong())?);
        if min <= max { Ok((min, max)) } else { Err(wrong()) }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LogSection {
    /// What is logged, in directives such as `info,tidemill_batch=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: "text".to_owned() }
    }
}

impl LogSection {
    /// The format that is named.
    pub fn parsed_format(&self) -> Result<LogFormat> {
        match self.format.as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(Error::invalid(format!("log.format `{other}` is neither `text` nor `json`"))),
        }
    }
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TelemetrySection {
    /// URL of an OpenTelemetry collector (OTLP over HTTP, such as `http://127.0.0.1:4318`); empty: none.
    pub otlp: String,
}

impl ServerConfig {
    /// The HTTP listener's address.
    pub fn listen(&self) -> Result<SocketAddr> {
        parse_address("server.listen", &self.server.listen)
    }

    /// Which driver each block has, checked with what the drivers need to be told.
    pub fn plan(&self) -> Result<Plan> {
        let plan = self.drivers.plan()?;
        if plan.uses(Driver::Postgres) {
            self.postgres.check()?;
        }
        if plan.uses(Driver::Aws) {
            self.aws.check(&plan)?;
        }
        if plan.fleet == FleetDriver::Command && self.fleet.command.as_os_str().is_empty() {
            return Err(Error::invalid(
                "fleet.command is not set and drivers.fleet is `command`; name the program that starts and stops workers",
            ));
        }
        if plan.grants == Driver::Aws && !self.server.s3_listen.is_empty() {
            return Err(Error::invalid(
                "server.s3-listen is set and drivers.grants is `aws`; clients with a credential of STS speak to S3 itself: leave out \
                 server.s3-listen, or set drivers.grants to `postgres`",
            ));
        }
        Ok(plan)
    }

    /// What can be found wrong before anything is started.
    pub fn check(&self) -> Result<()> {
        self.plan()?;
        self.listen()?;
        for (key, address) in [("server.sql-listen", &self.server.sql_listen), ("server.s3-listen", &self.server.s3_listen)] {
            if !address.is_empty() {
                parse_address(key, address)?;
            }
        }
        self.fleet.check()?;
        self.batch.check()?;
        self.sql.check()?;
        self.archive.check()?;
        self.grid.check()?;
        if !self.telemetry.otlp.is_empty() {
            crate::telemetry::endpoint(&self.telemetry.otlp)?;
        }
        if self.objects.keep_uploads.0 < Duration::from_secs(1) {
            return Err(Error::invalid("objects.keep-uploads must be at least 1s; clients add parts for as long as they take"));
        }
        self.log.parsed_format()?;
        if self.tls.cert.as_os_str().is_empty() != self.tls.key.as_os_str().is_empty() {
            return Err(Error::invalid("tls.cert and tls.key belong together; give both (`--tls-cert`, `--tls-key`) or neither"));
        }
        if self.limits.max_connections == 0 || self.limits.request_timeout.0.is_zero() || self.limits.header_timeout.0.is_zero() {
            return Err(Error::invalid("limits.max-connections, limits.request-timeout and limits.header-timeout must be above zero"));
        }
        Ok(())
    }
}

/// An address as a key gives it.
pub fn parse_address(key: &str, text: &str) -> Result<SocketAddr> {
    let wrong = |e| Error::invalid(format!("{key} `{text}` is not an address and port; write it like 127.0.0.1:8080")).with_source(e);
    text.replace("localhost:", "127.0.0.1:").parse().map_err(wrong)
}

const fn seconds(n: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(n))
}

/// Sizes are text in every layer, so that `64MiB` can be written in each.
fn as_text<S: Serializer>(size: &ByteSize, s: S) -> Result<S::Ok, S::Error> {
    let bytes = size.bytes();
    match bytes {
        b if b > 0 && b % (1 << 20) == 0 => s.collect_str(&format_args!("{}MiB", b >> 20)),
        b => s.collect_str(&b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_runtime::Layers;

    #[test]
    fn the_defaults_survive_the_layers_and_are_right() {
        let layers = Layers::defaults(&ServerConfig::default()).unwrap();
        let config: ServerConfig = layers.build().unwrap();
        assert_eq!(config, ServerConfig::default());
        config.check().unwrap();
    }

    #[test]
    fn every_layer_takes_people_s_units() {
        let config: ServerConfig = Layers::defaults(&ServerConfig::default())
            .unwrap()
            .file("tidemill.toml", "[limits]\nmax-body = \"1MiB\"\nrequest-timeout = 5\n[tls]\nnames = [\"mill\"]")
            .unwrap()
            .env([("TIDEMILL_LIMITS_MAX_WORKER_BODY".to_owned(), "2MiB".to_owned())])
            .unwrap()
            .flag("fleet.workers", "2..4")
            .unwrap()
            .build()
            .unwrap();
        assert_eq!((config.limits.max_body, config.limits.max_worker_body), (ByteSize(1 << 20), ByteSize(2 << 20)));
        assert_eq!(config.limits.request_timeout.0, Duration::from_secs(5));
        assert_eq!(config.fleet.groups()[0].bounds().unwrap(), (2, 4));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |f: fn(&mut ServerConfig), word: &str| {
            let mut config = ServerConfig::default();
            f(&mut config);
            let e = config.check().unwrap_err();
            assert!(e.message().contains(word), "{e}");
        };
        check(|c| c.server.listen = "here".to_owned(), "`here`");
        check(|c| c.fleet.workers = "4..2".to_owned(), "`4..2`");
        check(|c| c.tls.cert = "cert.pem".into(), "--tls-key");
        check(|c| c.log.format = "xml".to_owned(), "`xml`");
        check(|c| c.telemetry.otlp = "collector:4317".to_owned(), "`collector:4317`");
        check(|c| c.batch.max_receives = 0, "batch.max-receives");
        check(|c| c.batch.segment_age = seconds(0), "batch.segment-age");
        let defaults = || Layers::defaults(&ServerConfig::default()).unwrap();
        let e = defaults().file("tidemill.toml", "[batch]\nkeep = \"30d\"\nkep = 1").unwrap_err();
        assert!(e.message().contains("`batch.kep` in tidemill.toml line 3"), "{e}");
        let config: ServerConfig = defaults().file("t", "[batch]\nkeep = \"30d\"").unwrap().build().unwrap();
        assert_eq!(config.batch.keep(), Some(Duration::from_secs(30 * 24 * 3600)));
    }
}
