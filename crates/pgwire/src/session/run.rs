//! Running a portal: the engine's statements, and the session's own.

use bytes::BytesMut;
use tidemill_runtime::Stopwatch;

use super::copy::{CopyFormat, CopyOptions};
use super::extended::unknown_portal;
use super::rows::{Rows, Sink, formats};
use super::utility::{Count, Utility};
use super::{MAX_KEPT, Portal, SETTINGS, Session, State, Work, text_fields};
use crate::error::{CANCELLED, SqlError};
use crate::lex::tokens;
use crate::link::{Halt, Link};
use crate::rewrite::{Parameters, rewrite};
use crate::value::Parameter;
use crate::wire::Transaction;

impl Session {
    /// Runs a portal for `most` rows. `announce` says the columns first, as the simple protocol has it.
    pub(super) async fn execute(&mut self, link: &mut Link, name: &str, most: u64, announce: bool) -> Result<(), Halt> {
        let mut portal = self.portals.remove(name).ok_or_else(|| unknown_portal(name))?;
        match portal.work.clone() {
            Work::Empty => link.reply.bare(b'I'),
            Work::Utility(utility) => self.utility(link, utility, &portal, announce).await?,
            Work::Query(sql) => {
                let finished = self.pass_on(link, &mut portal, most, announce, Sink::Client).await?;
                match finished {
                    (rows, true) => link.reply.complete(&tag(&sql, rows)),
                    (_, false) => link.reply.bare(b's'),
                }
            }
        }
        if !name.is_empty() || matches!(portal.state, State::Open(_)) {
            self.portals.insert(name.to_owned(), portal);
        }
        Ok(())
    }

    /// Starts a statement of the engine's.
    pub(super) async fn open(&mut self, link: &mut Link, sql: &str, parameters: &[Parameter], codes: &[i16]) -> Result<Rows, Halt> {
        self.may_run()?;
        self.admitted().await?;
        let (limits, change) = (self.limits(), rewrite(self.facts(), Parameters::Values(parameters.to_vec())));
        self.key.asked.mark_unchanged();
        let answer = link.attend(&mut self.key.asked, self.engine.query_as(sql, limits, change)).await?;
        let answer = answer.map_err(|e| {
            count_statement(false);
            SqlError::of_statement(sql, &e)
        })?;
        Ok(Rows::new(answer, codes)?)
    }

    /// Sends up to `most` rows of a portal's query. How many, and whether these were the last.
    async fn pass_on(
        &mut self,
        link: &mut Link,
        portal: &mut Portal,
        most: u64,
        announce: bool,
        sink: Sink<'_>,
    ) -> Result<(u64, bool), Halt> {
        let clock = Stopwatch::start();
        let Work::Query(sql) = &portal.work else { return Ok((0, true)) };
        if matches!(portal.state, State::Fresh) {
            let rows = self.open(link, sql, &portal.parameters, &portal.formats).await?;
            portal.state = State::Open(Box::new(rows));
        }
        let rows = match &mut portal.state {
            State::Open(rows) => rows,
            State::Expired => {
                let limit = self.engine.timeout();
                let error = SqlError::new(CANCELLED, format!("the cursor was open for longer than a statement may take, {limit:?}"));
                return Err(error.with_hint("read faster, in larger portions, or raise the timeout of SQL").into());
            }
            State::Fresh => return Ok((0, true)),
        };
        match sink {
            Sink::Client if announce => link.reply.columns(&rows.fields()?),
            Sink::Copy(options) => {
                let fields = rows.fields()?;
                link.reply.copy_out(options.format == CopyFormat::Binary, fields.len());
                let names: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
                match options.format {
                    CopyFormat::Binary => options.head(&names, &mut rows.head),
                    _ if options.header => link.reply.message(b'd', |out| options.head(&names, out)),
                    _ => {}
                }
            }
            _ => {}
        }
        self.key.asked.mark_unchanged();
        let sent = rows.send(link, &mut self.key.asked, most, sink).await.map_err(|halt| match halt {
            Halt::Error(e) => {
                count_statement(false);
                Halt::Error(e)
            }
            other => other,
        })?;
        if sent.1 {
            count_statement(true);
            metrics::histogram!("tidemill_pgwire_statement_seconds").record(clock.elapsed().as_secs_f64());
        }
        Ok(sent)
    }

    async fn utility(&mut self, link: &mut Link, utility: Utility, portal: &Portal, announce: bool) -> Result<(), Halt> {
        if !matches!(utility, Utility::Commit | Utility::Rollback | Utility::RollbackTo) {
            self.may_run()?;
        }
        let codes = portal.formats.as_slice();
        match utility {
            Utility::Begin => self.begin(link),
            Utility::Commit => self.end(link, "COMMIT"),
            Utility::Rollback => self.end(link, "ROLLBACK"),
            Utility::RollbackTo => {
                if self.transaction == Transaction::Failed {
                    self.transaction = Transaction::Open;
                }
                link.reply.complete("ROLLBACK");
            }
            Utility::Noted(word) => link.reply.complete(word),
            Utility::Set { name, value } => self.set(link, &name, value.as_deref())?,
            Utility::ResetAll => {
                self.settings.reset_all();
                link.reply.complete("RESET");
            }
            Utility::Show(name) => self.show(link, &name, codes, announce)?,
            Utility::ShowAll => self.show_all(link, codes, announce)?,
            Utility::Discard(word) => {
                if word == "DISCARD ALL" {
                    self.prepared.clear();
                    self.portals.clear();
                    self.settings.reset_all();
                }
                link.reply.complete(word);
            }
            Utility::Deallocate(name) => self.deallocate(link, name.as_deref())?,
            Utility::Declare { name, hold, sql } => self.declare(link, name, hold, &sql, &portal.parameters).await?,
            Utility::Fetch { name, count, skip } => self.fetch(link, &name, count, skip, codes, announce).await?,
            Utility::CloseCursor(None) => {
                self.portals.clear();
                link.reply.complete("CLOSE CURSOR ALL");
            }
            Utility::CloseCursor(Some(name)) => {
                self.portals.remove(&name).ok_or_else(|| unknown_portal(&name))?;
                link.reply.complete("CLOSE CURSOR");
            }
            Utility::Copy { sql, options } => self.copy(link, &sql, &options).await?,
        }
        Ok(())
    }

    fn begin(&mut self, link: &mut Link) {
        if self.transaction == Transaction::Open {
            link.reply.notice(&SqlError::new("25001", "there is already a transaction in progress"), "WARNING");
        }
        self.transaction = Transaction::Open;
        link.reply.complete("BEGIN");
    }

    fn end(&mut self, link: &mut Link, word: &str) {
        if self.transaction == Transaction::None {
            link.reply.notice(&SqlError::new("25P01", "there is no transaction in progress"), "WARNING");
        }
        link.reply.complete(if self.transaction == Transaction::Failed { "ROLLBACK" } else { word });
        self.transaction = Transaction::None;
        self.end_of_statement();
    }

    fn set(&mut self, link: &mut Link, name: &str, value: Option<&str>) -> Result<(), Halt> {
        let outcome = self.settings.set(name, value)?;
        if let Some(notice) = outcome.notice {
            link.reply.notice(&SqlError::new("00000", notice), "NOTICE");
        }
        if let Some((name, value)) = outcome.report {
            link.reply.parameter(name, &value);
        }
        link.reply.complete("SET");
        Ok(())
    }

    /// A setting's name as PostgreSQL writes it.
    pub(super) fn shown_as<'a>(&self, name: &'a str) -> &'a str {
        SETTINGS.iter().find(|s| s.name.eq_ignore_ascii_case(name)).map_or(name, |s| s.name)
    }

    fn show(&mut self, link: &mut Link, name: &str, codes: &[i16], announce: bool) -> Result<(), Halt> {
        let facts = self.facts();
        let value = facts.settings.get(&name.to_lowercase()).ok_or_else(|| {
            SqlError::new("42704", format!("unrecognized configuration parameter \"{name}\""))
                .with_hint("SHOW ALL lists those that there are")
        })?;
        if announce {
            link.reply.columns(&text_fields(&[self.shown_as(name)], codes)?);
        }
        text_row(link, &[value]);
        link.reply.complete("SHOW");
        Ok(())
    }

    fn show_all(&mut self, link: &mut Link, codes: &[i16], announce: bool) -> Result<(), Halt> {
        formats(codes, 3)?;
        if announce {
            link.reply.columns(&text_fields(&["name", "setting", "description"], codes)?);
        }
        let facts = self.facts();
        for (name, value) in &facts.settings {
            text_row(link, &[self.shown_as(name), value, ""]);
        }
        link.reply.complete("SHOW");
        Ok(())
    }

    fn deallocate(&mut self, link: &mut Link, name: Option<&str>) -> Result<(), Halt> {
        match name {
            None => self.prepared.clear(),
            Some(name) => {
                let gone = self.prepared.remove(name);
                gone.ok_or_else(|| SqlError::new("26000", format!("prepared statement \"{name}\" does not exist")))?;
            }
        }
        link.reply.complete(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" });
        Ok(())
    }

    async fn declare(&mut self, link: &mut Link, name: String, hold: bool, sql: &str, parameters: &[Parameter]) -> Result<(), Halt> {
        if self.transaction == Transaction::None && !hold {
            return Err(SqlError::new("25P01", "DECLARE CURSOR can only be used in transaction blocks")
                .with_hint("BEGIN first, or say WITH HOLD")
                .into());
        }
        if self.portals.contains_key(&name) {
            return Err(SqlError::new("42P03", format!("cursor \"{name}\" already exists")).into());
        }
        if self.portals.len() >= MAX_KEPT {
            return Err(SqlError::new("53000", format!("{MAX_KEPT} cursors are the limit")).into());
        }
        let rows = self.open(link, sql, parameters, &[]).await?;
        let (work, state) = (Work::Query(sql.into()), State::Open(Box::new(rows)));
        self.portals.insert(name, Portal { work, parameters: Vec::new(), formats: Vec::new(), state, hold });
        link.reply.complete("DECLARE CURSOR");
        Ok(())
    }

    async fn fetch(&mut self, link: &mut Link, name: &str, count: Count, skip: bool, codes: &[i16], announce: bool) -> Result<(), Halt> {
        let most = match count {
            Count::Rows(n) => n,
            Count::All => u64::MAX,
        };
        let mut portal = self.portals.remove(name).ok_or_else(|| unknown_portal(name))?;
        if let State::Open(rows) = &mut portal.state {
            rows.set_formats(codes)?;
        }
        let sink = if skip { Sink::Nowhere } else { Sink::Client };
        let outcome = self.pass_on(link, &mut portal, most, announce, sink).await;
        self.portals.insert(name.to_owned(), portal);
        let (rows, _) = outcome?;
        link.reply.complete(&format!("{} {rows}", if skip { "MOVE" } else { "FETCH" }));
        Ok(())
    }

    async fn copy(&mut self, link: &mut Link, sql: &str, options: &CopyOptions) -> Result<(), Halt> {
        let mut portal =
            Portal { work: Work::Query(sql.into()), parameters: Vec::new(), formats: Vec::new(), state: State::Fresh, hold: false };
        let (rows, _) = self.pass_on(link, &mut portal, u64::MAX, false, Sink::Copy(options)).await?;
        if options.format == CopyFormat::Binary {
            let head = if let State::Open(rows) = &mut portal.state { rows.head.split() } else { BytesMut::new() };
            link.reply.message(b'd', |out| {
                out.extend_from_slice(&head);
                options.tail(out);
            });
        }
        link.reply.bare(b'c');
        link.reply.complete(&format!("COPY {rows}"));
        Ok(())
    }
}

fn count_statement(ok: bool) {
    metrics::counter!("tidemill_pgwire_statements_total", "outcome" => if ok { "ok" } else { "error" }).increment(1);
}

/// A row of texts; they are the same in both formats.
fn text_row(link: &mut Link, values: &[&str]) {
    link.reply.message(b'D', |out| {
        out.extend_from_slice(&u16::try_from(values.len()).unwrap_or(0).to_be_bytes());
        for value in values {
            out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    });
}

/// What is said when a statement is done.
fn tag(sql: &str, rows: u64) -> String {
    match tokens(sql).next() {
        Some(word) if word.is("explain") => "EXPLAIN".to_owned(),
        Some(word) if word.is("show") || word.is("describe") => "SHOW".to_owned(),
        _ => format!("SELECT {rows}"),
    }
}
