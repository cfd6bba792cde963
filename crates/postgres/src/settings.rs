//! Where the database is and how to speak to it, read from a URL without ever repeating the password.

use std::fmt;
use std::time::Duration;

use tidemill_base::{Error, Result};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::tls::{Tls, Trust};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After so much silence the other side is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What was sent and not acknowledged by the network for so long ends the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// PostgreSQL cuts longer names off in silence; the channel of notifications has a prefix of its own.
const MAX_SCHEMA: usize = 40;

/// How to reach the database.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`.
    ///
    /// `sslmode` is `disable`; `prefer` (as it is without one: encrypted if the server can, not verified); `require` (encrypted, and
    /// verified against [`ca`](Self::ca) if that is given); `verify-ca`; or `verify-full` (the certificate must be for the host and
    /// come from `ca`, or without that from one of the web's authorities).
    pub url: String,
    /// The most connections at a time, besides the one that listens. At least 1.
    pub pool: u32,
    /// The schema that all tables are in; it is made if it is not there. 1 to 40 characters of `a-z 0-9 _`.
    pub schema: String,
    /// Certificates, in PEM, of the authorities to believe.
    pub ca: Option<Vec<u8>>,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings").field("pool", &self.pool).field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PostgresSettings {
    /// The database behind `url`, with ten connections and the schema `tidemill`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), pool: 10, schema: "tidemill".to_owned(), ca: None }
    }
}

/// Settings as they are used.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: Tls,
    pub(crate) schema: String,
    pub(crate) pool: usize,
    /// For messages: host, port and database.
    pub(crate) place: String,
}

impl Target {
    pub(crate) fn new(settings: &PostgresSettings) -> Result<Self> {
        let schema = settings.schema.clone();
        if !(1..=MAX_SCHEMA).contains(&schema.len()) || !schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return Err(Error::invalid(format!("postgres schema `{schema}` must be 1 to {MAX_SCHEMA} characters of a-z 0-9 _")));
        }
        if settings.pool == 0 {
            return Err(Error::invalid("a pool of 0 postgres connections can do nothing; take at least 1"));
        }
        let (url, mode) = split_mode(&settings.url)?;
        let mut config: tokio_postgres::Config = url.parse().map_err(|_| unreadable())?;
        if config.get_hosts().is_empty() {
            return Err(unreadable());
        }
        config.ssl_mode(mode.wanted());
        if config.get_application_name().is_none() {
            config.application_name("tidemill");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 3).keepalives_retries(3).tcp_user_timeout(TCP_USER_TIMEOUT);
        // After a failover the old primary may answer as a standby, which is no use to anybody here.
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let tls = Tls::new(mode.trust(settings.ca.is_some()), settings.ca.as_deref())?;
        Ok(Self { place: place(&config), config, tls, schema, pool: usize::try_from(settings.pool).unwrap_or(usize::MAX) })
    }
}

fn unreadable() -> Error {
    // The parser's own message may hold a piece of the password, so it goes no further.
    Error::invalid(
        "the postgres url cannot be read; write postgres://user:password@host:5432/database?sslmode=verify-full, with special characters \
         of the password percent-encoded",
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    const fn wanted(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }

    /// As libpq has it: `require` verifies the chain if it is given an authority.
    const fn trust(self, has_ca: bool) -> Trust {
        match self {
            Self::Disable | Self::Prefer => Trust::Anybody,
            Self::Require if !has_ca => Trust::Anybody,
            Self::Require | Self::VerifyCa => Trust::Chain,
            Self::VerifyFull => Trust::ChainAndName,
        }
    }
}

/// Takes `sslmode` out of the URL, since the client library knows fewer of its values.
fn split_mode(url: &str) -> Result<(String, Mode)> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(unreadable());
    }
    // A password that was not encoded may hold a question mark too.
    let host = url.rfind('@').unwrap_or(0);
    let Some(at) = url[host..].find('?') else { return Ok((url.to_owned(), Mode::Prefer)) };
    let (base, query) = (&url[..host + at], &url[host + at + 1..]);
    let (mut mode, mut rest) = (Mode::Prefer, Vec::new());
    for pair in query.split('&') {
        mode = match pair.strip_prefix("sslmode=") {
            None => {
                rest.push(pair);
                mode
            }
            Some("disable") => Mode::Disable,
            Some("prefer" | "allow") => Mode::Prefer,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(_) => {
                return Err(Error::invalid(
                    "the postgres url has an unknown sslmode; write disable, prefer, require, verify-ca or verify-full",
                ));
            }
        };
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((url, mode))
}

fn place(config: &tokio_postgres::Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => String::new(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("{host}:{port}/{}", config.get_dbname().or(config.get_user()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target> {
        Target::new(&PostgresSettings::new(url))
    }

    #[test]
    fn urls_are_read_with_every_mode() {
        for (query, mode, trust) in [
            ("", SslMode::Prefer, Trust::Anybody),
            ("?sslmode=disable", SslMode::Disable, Trust::Anybody),
            ("?application_name=x&sslmode=require", SslMode::Require, Trust::Anybody),
            ("?sslmode=verify-ca&connect_timeout=3", SslMode::Require, Trust::Chain),
            ("?sslmode=verify-full", SslMode::Require, Trust::ChainAndName),
        ] {
            let target = target(&format!("postgres://u:p@db.example:6543/app{query}")).unwrap();
            assert_eq!((target.config.get_ssl_mode(), target.tls.trust()), (mode, trust), "{query}");
            assert_eq!(target.place, "db.example:6543/app");
        }
    }

    #[test]
    fn nothing_that_is_printed_holds_the_password() {
        for url in ["postgres://u:s3cret@h:port/db", "postgres://u:s3cret@h/db?sslmode=nope", "s3cret"] {
            let e = target(url).unwrap_err();
            assert!(!format!("{e:?} {e}").contains("s3cret"), "{e:?}");
        }
        let settings = PostgresSettings::new("postgres://u:s3cret@h/db");
        let shown = format!("{settings:?} {:?}", Target::new(&settings).unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn schemas_and_pools_are_checked() {
        for (schema, pool) in [("", 1), ("Upper", 1), ("a-b", 1), ("a\"b", 1), (&*"x".repeat(41), 1), ("fine", 0)] {
            let settings = PostgresSettings { schema: schema.to_owned(), pool, ..PostgresSettings::new("postgres://u@h/db") };
            assert_eq!(Target::new(&settings).unwrap_err().kind(), tidemill_base::ErrorKind::Invalid, "{schema} {pool}");
        }
    }
}
