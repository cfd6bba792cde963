//! A session: what a signed-in client says, and what it is answered.
//!
//! The flow is that of <https://www.postgresql.org/docs/current/protocol-flow.html>. Transactions are kept count of, since clients look, and
//! hold nothing: every statement reads what is there when it runs.

pub(crate) mod copy;
mod extended;
mod rows;
mod run;
mod settings;
pub(crate) mod utility;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::ErrorKind;
use tidemill_query::{Engine, Limits};

use self::rows::Rows;
pub(crate) use self::settings::{SETTINGS, Settings};
use self::utility::Utility;
use crate::cancel::Key;
use crate::catalog::relations;
use crate::error::{SqlError, SqlResult};
use crate::gate::Pass;
use crate::link::{Event, Halt, Link};
use crate::rewrite::{Facts, Names};
use crate::value::{Format, Parameter};
use crate::wire::{Frontend, Transaction};
use crate::{lex, wire};

/// Prepared statements, and portals, that one session may keep.
const MAX_KEPT: usize = 1_000;

/// What a statement is.
#[derive(Debug, Clone)]
enum Work {
    Empty,
    Utility(Utility),
    /// For the engine.
    Query(Arc<str>),
}

impl Work {
    /// Of one statement.
    fn of(sql: &str) -> SqlResult<Self> {
        match lex::statements(sql).as_slice() {
            [] => Ok(Self::Empty),
            [one] => Ok(utility::parse(one)?.map_or_else(|| Self::Query(Arc::from(*one)), Self::Utility)),
            _ => Err(SqlError::new("42601", "cannot insert multiple commands into a prepared statement")),
        }
    }
}

/// A statement that was prepared.
struct Prepared {
    work: Work,
    /// Types of its parameters, 0 for those that neither the client nor the engine has said yet.
    types: Vec<u32>,
}

/// A statement with its values, and its answer as far as it was read.
struct Portal {
    work: Work,
    parameters: Vec<Parameter>,
    /// Formats of the answer's columns, as they were asked for.
    formats: Vec<i16>,
    state: State,
    /// Outlives the transaction: WITH HOLD.
    hold: bool,
}

enum State {
    Fresh,
    Open(Box<Rows>),
    /// Was open for longer than a statement may take; the engine's threads are not held for who does not come back.
    Expired,
}

pub(crate) struct Session {
    engine: Arc<Engine>,
    pass: Box<dyn Pass>,
    version: String,
    key: Key,
    settings: Settings,
    transaction: Transaction,
    prepared: BTreeMap<String, Prepared>,
    portals: BTreeMap<String, Portal>,
    /// After an error everything is passed over until the client says Sync.
    skipping: bool,
}

impl Session {
    pub(crate) const fn new(engine: Arc<Engine>, pass: Box<dyn Pass>, version: String, key: Key, settings: Settings) -> Self {
        let transaction = Transaction::None;
        Self { engine, pass, version, key, settings, transaction, prepared: BTreeMap::new(), portals: BTreeMap::new(), skipping: false }
    }

    /// Goes on until the client leaves.
    pub(crate) async fn run(&mut self, link: &mut Link) -> Result<(), Halt> {
        loop {
            let Event::Message(message) = link.next(self.until_expiry()).await? else {
                self.expire();
                continue;
            };
            if self.skipping && !matches!(message, Frontend::Sync | Frontend::Terminate) {
                continue;
            }
            let simple = matches!(message, Frontend::Query(_));
            match self.handle(link, message).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Halt::Error(error)) => {
                    self.fail(link, &error);
                    self.skipping = !simple;
                }
                Err(halt) => return Err(halt),
            }
            if simple {
                link.reply.ready(self.transaction);
            }
        }
    }

    /// Whether the session goes on.
    async fn handle(&mut self, link: &mut Link, message: Frontend) -> Result<bool, Halt> {
        match message {
            Frontend::Query(sql) => self.simple(link, &sql).await?,
            Frontend::Parse { name, sql, types } => self.parse(link, name, &sql, types)?,
            Frontend::Bind(bind) => self.bind(link, bind)?,
            Frontend::Describe(wire::Target::Statement, name) => self.describe_statement(link, &name).await?,
            Frontend::Describe(wire::Target::Portal, name) => self.describe_portal(link, &name).await?,
            Frontend::Execute { portal, rows } => {
                let most = if rows == 0 { u64::MAX } else { u64::from(rows) };
                self.execute(link, &portal, most, false).await?;
            }
            Frontend::Close(target, name) => {
                match target {
                    wire::Target::Statement => drop(self.prepared.remove(&name)),
                    wire::Target::Portal => drop(self.portals.remove(&name)),
                }
                link.reply.bare(b'3');
            }
            Frontend::Flush => link.flush().await?,
            Frontend::Sync => {
                self.skipping = false;
                self.end_of_statement();
                link.reply.ready(self.transaction);
            }
            Frontend::Terminate => {
                // Who sends all at once and leaves still reads what was asked before.
                link.flush().await?;
                return Ok(false);
            }
            Frontend::Password(_) => return Err(Halt::Fatal(SqlError::new("08P01", "a password was not asked for"))),
            // What is left of a COPY FROM that was refused.
            Frontend::Copy => {}
            Frontend::Call => {
                return Err(SqlError::new("0A000", "calls by a function's number are not offered").with_hint("use SELECT").into());
            }
        }
        Ok(true)
    }

    /// A text of any number of statements. The first that fails is the last.
    async fn simple(&mut self, link: &mut Link, sql: &str) -> Result<(), Halt> {
        let statements = lex::statements(sql);
        if statements.is_empty() {
            link.reply.bare(b'I');
        }
        for statement in statements {
            let work = Work::of(statement)?;
            let portal = Portal { work, parameters: Vec::new(), formats: Vec::new(), state: State::Fresh, hold: false };
            self.portals.insert(String::new(), portal);
            let outcome = self.execute(link, "", u64::MAX, true).await;
            self.portals.remove("");
            outcome.map_err(|halt| shifted(halt, sql, statement))?;
        }
        self.end_of_statement();
        Ok(())
    }

    fn fail(&mut self, link: &mut Link, error: &SqlError) {
        metrics::counter!("tidemill_pgwire_errors_total", "state" => error.state).increment(1);
        link.reply.error(error, "ERROR");
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
        self.end_of_statement();
    }

    /// Without a transaction portals live as long as the statement does.
    fn end_of_statement(&mut self) {
        match self.transaction {
            Transaction::None => self.portals.retain(|_, p| p.hold),
            Transaction::Failed => self.portals.clear(),
            Transaction::Open => {}
        }
    }

    /// What literals and names are made from, as of now.
    fn facts(&self) -> Arc<Facts> {
        let mut path = self.settings.search_path();
        path.push(self.engine.default_schema().to_owned());
        let names = Names::new(&relations(&self.engine), &path);
        let mut settings = self.settings.all().clone();
        settings.insert("search_path".to_owned(), names.path.join(", "));
        Arc::new(Facts { user: self.pass.user().to_owned(), version: self.version.clone(), process: self.key.process, settings, names })
    }

    fn limits(&self) -> Limits {
        Limits { timeout: self.settings.statement_timeout(), ..Limits::default() }
    }

    /// Whether the session may still ask; looked up before each statement.
    async fn admitted(&self) -> Result<(), Halt> {
        self.pass.check().await.map_err(|e| match e.kind() {
            ErrorKind::Denied => Halt::Fatal(SqlError::new("28000", e.message())),
            ErrorKind::Exhausted => Halt::Error(SqlError::new("53400", e.message()).with_hint("ask for less, or less often")),
            _ => Halt::Error(e.into()),
        })
    }

    /// How long until an answer that nobody reads is let go of.
    fn until_expiry(&self) -> Option<Duration> {
        let limit = self.engine.timeout();
        let open = self.portals.values().filter_map(|p| if let State::Open(rows) = &p.state { rows.age() } else { None });
        open.max().map(|age| limit.saturating_sub(age))
    }

    fn expire(&mut self) {
        let limit = self.engine.timeout();
        for portal in self.portals.values_mut() {
            if matches!(&portal.state, State::Open(rows) if rows.age().is_some_and(|age| age >= limit)) {
                portal.state = State::Expired;
            }
        }
    }
}

/// A place in one of several statements as a place in the whole text.
fn shifted(halt: Halt, sql: &str, statement: &str) -> Halt {
    let before = sql.len().min((statement.as_ptr() as usize).saturating_sub(sql.as_ptr() as usize));
    let Halt::Error(mut error) = halt else { return halt };
    let characters = sql.get(..before).map_or(0, |text| text.chars().count());
    error.position = error.position.map(|position| position + characters);
    Halt::Error(error)
}

/// Text columns of these names, for what the session answers by itself.
fn text_fields(names: &[&str], codes: &[i16]) -> SqlResult<Vec<wire::Field>> {
    let formats = rows::formats(codes, names.len())?;
    let one = |(name, format): (&&str, Format)| wire::Field { name: (*name).to_owned(), oid: 25, length: -1, format: format.code() };
    Ok(names.iter().zip(formats).map(one).collect())
}
