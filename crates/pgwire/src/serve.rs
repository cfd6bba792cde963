//! The listener: connections, their encryption, and signing in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_query::Engine;
use tidemill_runtime::{Kind, Shutdown, Tasks, sleep, timeout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::cancel::Cancels;
use crate::error::SqlError;
use crate::gate::{Gate, Pass};
use crate::link::{Event, Halt, Io, Link, MAX_FIRST};
use crate::session::{self, SETTINGS, Session};
use crate::wire::{Frontend, Opening, Reply, Transaction, opening};
use crate::{catalog, lex};

/// What PostgreSQL clients take us for. Statements that they send depend on it.
const SPOKEN: &str = "15.0";
/// Connections that are signing in, beside those that have.
const LOBBY: usize = 64;
/// How long sessions may take to end once the server closes.
const LAST: Duration = Duration::from_secs(6);
/// The first byte of a TLS handshake, for clients that do not ask.
const TLS_HANDSHAKE: u8 = 0x16;

/// Settings of the endpoint.
#[derive(Clone)]
pub struct Settings {
    /// Sessions at once; who comes after is told so.
    pub max_connections: usize,
    /// A session that says nothing for so long is ended.
    pub idle_timeout: Duration,
    /// How long encryption and signing in may take together.
    pub handshake_timeout: Duration,
    /// The certificate and its key; `None`: no TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Takes passwords in clear text from other machines too: a proxy in front speaks TLS.
    pub insecure: bool,
    /// The program's version, for people.
    pub version: String,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = self.tls.is_some();
        f.debug_struct("Settings").field("max_connections", &self.max_connections).field("tls", &tls).finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 100,
            idle_timeout: Duration::from_secs(30 * 60),
            handshake_timeout: Duration::from_secs(10),
            tls: None,
            insecure: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// An engine, a gate, and settings: all that connections share. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    engine: Arc<Engine>,
    gate: Arc<dyn Gate>,
    env: Env,
    settings: Arc<Settings>,
    tls: Option<TlsAcceptor>,
    cancels: Cancels,
    seats: Arc<Semaphore>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Adds PostgreSQL's catalog to the engine, in schemas that it does not list.
    pub fn new(engine: Arc<Engine>, gate: Arc<dyn Gate>, env: Env, settings: Settings) -> Self {
        catalog::register(&engine, &server_version(&settings));
        let seats = Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS)));
        let tls = settings.tls.as_ref().map(|config| {
            let mut config = rustls::ServerConfig::clone(config);
            // libpq says this name and would end the handshake over any other.
            config.alpn_protocols = vec![b"postgresql".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        Self { engine, gate, env, settings: Arc::new(settings), tls, cancels: Cancels::default(), seats }
    }
}

fn server_version(settings: &Settings) -> String {
    format!("{SPOKEN} (Tidemill {})", settings.version)
}

/// Serves `endpoint` on `listener` until the shutdown of `tasks` closes and the last session is done. Each connection is one of `tasks`. While
/// draining, sessions go on and new ones are taken, so that people see how far it is.
pub async fn serve(listener: TcpListener, endpoint: Endpoint, tasks: &Tasks) -> Result<()> {
    let total = (endpoint.settings.max_connections + LOBBY).min(Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(total));
    let shutdown = tasks.shutdown().clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.closing() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let (endpoint, shutdown) = (endpoint.clone(), shutdown.clone());
                tasks.spawn("sql-connection", Kind::Request, async move {
                    let _permit = permit;
                    endpoint.connection(stream, peer, shutdown).await;
                    Ok(())
                });
            }
            Err(e) => {
                // Out of file descriptors, most likely: others will end, and then there are some again.
                tracing::warn!(error = %e, "a connection could not be taken");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = slots.acquire_many(u32::try_from(total).unwrap_or(u32::MAX));
    if timeout(LAST, "the last sessions", all).await.is_err() {
        tracing::warn!("sessions were cut off, since they did not end in time");
    }
    Ok(())
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

/// A client before it has signed in.
struct Arrival {
    stream: Box<dyn Io>,
    input: BytesMut,
    encrypted: bool,
    minor: u16,
    parameters: BTreeMap<String, String>,
}

impl Endpoint {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, shutdown: Shutdown) {
        let arrival = match timeout(self.settings.handshake_timeout, "the handshake", self.arrive(stream)).await {
            Ok(Ok(Some(arrival))) => arrival,
            // A request to cancel, a scanner, a client that does not trust us: none is our failure.
            Ok(Ok(None)) => return,
            Ok(Err(e)) => return tracing::debug!(%peer, error = %e, "no session"),
            Err(e) => return tracing::debug!(%peer, error = %e, "no session"),
        };
        let (encrypted, minor, parameters) = (arrival.encrypted, arrival.minor, arrival.parameters);
        let mut link = Link {
            stream: arrival.stream,
            input: arrival.input,
            reply: Reply::default(),
            peer,
            shutdown,
            idle: self.settings.handshake_timeout,
            signed_in: false,
        };
        let outcome = self.session(&mut link, encrypted, minor, &parameters).await;
        if let Err(Halt::Error(error) | Halt::Fatal(error)) = outcome {
            tracing::debug!(%peer, state = error.state, error = error.message, "session ended");
            metrics::counter!("tidemill_pgwire_errors_total", "state" => error.state).increment(1);
            link.reply.error(&error, "FATAL");
            // The client may be gone already.
            let _ = link.flush().await;
        }
        let _ = timeout(self.settings.handshake_timeout, "the end", link.stream.shutdown()).await;
    }

    /// Settles encryption, up to the message that begins a session; `None` when there is to be none.
    async fn arrive(&self, stream: TcpStream) -> Result<Option<Arrival>> {
        let mut first = [0_u8];
        stream.peek(&mut first).await?;
        let mut encrypted = false;
        let mut stream: Box<dyn Io> = match &self.tls {
            Some(tls) if first == [TLS_HANDSHAKE] => {
                encrypted = true;
                Box::new(tls.accept(stream).await?)
            }
            _ => Box::new(stream),
        };
        let mut input = BytesMut::new();
        // Encryption is asked for once by each of its names.
        for _ in 0..4 {
            match read_opening(&mut stream, &mut input).await? {
                None => return Ok(None),
                Some(Opening::Ssl) if !encrypted && self.tls.is_some() => {
                    // What came before the handshake was not protected by it: CVE-2021-23214.
                    if !input.is_empty() {
                        return Err(Error::invalid("data before the TLS handshake"));
                    }
                    stream.write_all(b"S").await?;
                    stream.flush().await?;
                    if let Some(tls) = &self.tls {
                        stream = Box::new(tls.accept(stream).await?);
                        encrypted = true;
                    }
                }
                Some(Opening::Ssl | Opening::Gss) => {
                    stream.write_all(b"N").await?;
                    stream.flush().await?;
                }
                Some(Opening::Cancel { process, secret }) => {
                    self.cancels.ask(process, secret);
                    return Ok(None);
                }
                Some(Opening::Start { minor, parameters }) => return Ok(Some(Arrival { stream, input, encrypted, minor, parameters })),
            }
        }
        Err(Error::invalid("asks for encryption again and again"))
    }

    async fn session(
        &self,
        link: &mut Link,
        encrypted: bool,
        minor: u16,
        parameters: &BTreeMap<String, String>,
    ) -> std::result::Result<(), Halt> {
        if !encrypted && !self.settings.insecure && !link.peer.ip().to_canonical().is_loopback() {
            let error = SqlError::new("28000", "a password in clear text is taken from this machine alone");
            return Err(Halt::Fatal(error.with_hint("connect with TLS: sslmode=require")));
        }
        let unknown: Vec<&str> = parameters.keys().map(String::as_str).filter(|name| name.starts_with("_pq_.")).collect();
        if minor > 0 || !unknown.is_empty() {
            link.reply.version(&unknown);
        }
        if parameters.get("replication").is_some_and(|v| !matches!(v.as_str(), "false" | "off" | "no" | "0")) {
            return Err(Halt::Fatal(SqlError::new("0A000", "there is no replication from here")));
        }
        let Ok(_seat) = Arc::clone(&self.seats).try_acquire_owned() else {
            sign_in("full");
            let most = self.settings.max_connections;
            return Err(Halt::Fatal(SqlError::new("53300", format!("sorry, too many clients already, {most} is the limit"))));
        };
        let pass = timeout(self.settings.handshake_timeout, "signing in", self.sign_in(link, parameters)).await;
        let pass = pass.map_err(|_| Halt::Fatal(SqlError::new("08006", "signing in took too long")))??;
        metrics::gauge!("tidemill_pgwire_connections").increment(1.0);
        let outcome = self.signed_in(link, pass, parameters).await;
        metrics::gauge!("tidemill_pgwire_connections").decrement(1.0);
        outcome
    }

    /// Asks for the password.
    async fn sign_in(&self, link: &mut Link, parameters: &BTreeMap<String, String>) -> std::result::Result<Box<dyn Pass>, Halt> {
        let user = parameters.get("user").map_or("", String::as_str);
        if user.is_empty() {
            return Err(Halt::Fatal(SqlError::new("28000", "no user name was given").with_hint("any name will do, such as tidemill")));
        }
        link.reply.ask_password();
        let Event::Message(Frontend::Password(password)) = link.next(None).await? else {
            return Err(Halt::Fatal(SqlError::new("08P01", "a password was asked for")));
        };
        match self.gate.admit(user, &password, link.peer.ip()).await {
            Ok(pass) => {
                sign_in("ok");
                Ok(pass)
            }
            Err(e) => {
                sign_in("refused");
                let state = match e.kind() {
                    ErrorKind::Denied => "28P01",
                    ErrorKind::Exhausted => "53400",
                    _ => "58000",
                };
                let hint = "the password is a token; on the server's machine one is in the data folder's admin-token";
                Err(Halt::Fatal(SqlError::new(state, e.message()).with_hint(hint)))
            }
        }
    }

    async fn signed_in(
        &self,
        link: &mut Link,
        pass: Box<dyn Pass>,
        parameters: &BTreeMap<String, String>,
    ) -> std::result::Result<(), Halt> {
        let version = server_version(&self.settings);
        let mut settings = session::Settings::new(&version, pass.user());
        for (name, value) in wishes(parameters) {
            // A wish that cannot be met is no reason to turn somebody away.
            let _ = settings.set(&name, Some(&value));
        }
        settings.settle();
        link.reply.signed_in();
        for setting in SETTINGS.iter().filter(|s| s.reported) {
            link.reply.parameter(setting.name, settings.get(setting.name).unwrap_or_default());
        }
        let key = self.cancels.enter(&self.env);
        link.reply.key(key.process, key.secret);
        link.reply.ready(Transaction::None);
        (link.signed_in, link.idle) = (true, self.settings.idle_timeout);
        Session::new(Arc::clone(&self.engine), pass, format!("PostgreSQL {version}"), key, settings).run(link).await
    }
}

async fn read_opening(stream: &mut Box<dyn Io>, input: &mut BytesMut) -> Result<Option<Opening>> {
    loop {
        match opening(input, MAX_FIRST) {
            Ok(Some(opening)) => return Ok(Some(opening)),
            Ok(None) => {}
            Err(e) => return Err(Error::invalid(e.0)),
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

fn sign_in(outcome: &'static str) {
    metrics::counter!("tidemill_pgwire_sign_ins_total", "outcome" => outcome).increment(1);
}

/// Settings in the first message: those by their names, and those in `options`, as in `-c statement_timeout=5s`.
fn wishes(parameters: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => {
                let words: Vec<&str> = value.split_whitespace().collect();
                let given = words.iter().enumerate().filter_map(|(i, word)| match *word {
                    "-c" => words.get(i + 1).copied(),
                    word => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).filter(|w| w.contains('=')),
                });
                let pairs = given.filter_map(|w| w.split_once('=')).map(|(n, v)| (n.replace('-', "_"), v.to_owned()));
                out.extend(pairs);
            }
            name if name.starts_with("_pq_.") || lex::tokens(name).next().is_none() => {}
            name => out.push((name.to_owned(), value.clone())),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_come_by_name_and_as_options() {
        let given = [("user", "ada"), ("application_name", "x"), ("options", "-c statement_timeout=5s -cgeqo=off --lock-timeout=1")];
        let parameters = given.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let expected = [("application_name", "x"), ("statement_timeout", "5s"), ("geqo", "off"), ("lock_timeout", "1")];
        assert_eq!(wishes(&parameters), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
}
