//! The audit log: who changed what, when, from where, and with what outcome. In the ledger, next to what was changed.

use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{Extensions, Method};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tidemill_base::{Env, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Migration, Row, Statement};

use crate::AppState;
use crate::auth::{Principal, Role, SCOPE, guard, guard_scope};
use crate::error::ApiResult;
use crate::request::{Peer, RequestId};

/// The table of the log.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "audit-001-log",
    sql: "CREATE TABLE audit_log (
            id TEXT PRIMARY KEY, at_us BIGINT NOT NULL, user_name TEXT NOT NULL, token_id TEXT NOT NULL, action TEXT NOT NULL,
            target TEXT NOT NULL, outcome TEXT NOT NULL, address TEXT NOT NULL, request_id TEXT NOT NULL);
          CREATE INDEX audit_log_by_user ON audit_log (user_name, id)",
}];

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Entry {
    /// Sorts by time.
    pub id: String,
    /// When it was over.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// Who.
    pub user: String,
    /// With which token.
    pub token_id: String,
    /// What kind of thing: method and route, or a word such as `session.open`.
    pub action: String,
    /// To what.
    pub target: String,
    /// `200` and such, or a word of an error's kind.
    pub outcome: String,
    /// From where.
    pub address: String,
    /// Names the request in the server's log.
    pub request_id: String,
}

/// In a response's extensions: what was done stands in the system's own records, with when and by whom, and there is so much of it that a
/// line of each would bury the log. Tasks that somebody submits to a session of their own.
#[derive(Debug, Clone, Copy)]
pub struct InOwnRecords;

/// What the log is told; the rest it knows.
#[derive(Debug, Clone)]
pub struct Event {
    /// Who, with which token.
    pub who: Principal,
    /// What kind of thing.
    pub action: String,
    /// To what.
    pub target: String,
    /// How it went.
    pub outcome: String,
    /// From where.
    pub address: String,
    /// Which request.
    pub request_id: String,
}

impl Event {
    /// Of the request with these extensions, its outcome still open.
    pub fn of(extensions: &Extensions, who: Principal, action: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            who,
            action: action.into(),
            target: target.into(),
            outcome: String::new(),
            address: extensions.get::<Peer>().map(|p| p.0.to_string()).unwrap_or_default(),
            request_id: extensions.get::<RequestId>().map(|r| r.0.clone()).unwrap_or_default(),
        }
    }
}

/// The log.
#[derive(Debug, Clone)]
pub struct Audit {
    ledger: Arc<dyn Ledger>,
    env: Env,
}

impl Audit {
    /// Over `ledger`, which must have [`MIGRATIONS`] applied.
    pub fn new(ledger: Arc<dyn Ledger>, env: Env) -> Self {
        Self { ledger, env }
    }

    /// Adds a line. It is durable when this returns.
    pub async fn record(&self, event: Event) -> Result<()> {
        let sql = "INSERT INTO audit_log (id, at_us, user_name, token_id, action, target, outcome, address, request_id)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let params = vec![
            self.env.id("a").into(),
            self.env.now().into(),
            event.who.user.into(),
            event.who.token_id.into(),
            event.action.into(),
            event.target.into(),
            event.outcome.into(),
            event.address.into(),
            event.request_id.into(),
        ];
        self.ledger.transact(vec![Statement::new(sql, params)]).await.map(drop)
    }

    /// Adds a line about what has been done and cannot be undone: if the ledger does not take it, the log on stderr has to stand in.
    pub async fn record_done(&self, event: Event) {
        if let Err(e) = self.record(event.clone()).await {
            tracing::error!(?event, error = e.chain(), "the audit log could not be written");
        }
    }

    /// Up to `max` lines before the line `before` (or the newest), of `user` or of everybody, the newest first.
    pub async fn read(&self, user: Option<&str>, before: Option<&str>, max: u32) -> Result<Vec<Entry>> {
        let sql = "SELECT id, at_us, user_name, token_id, action, target, outcome, address, request_id FROM audit_log
                   WHERE (CAST($1 AS TEXT) IS NULL OR user_name = $1) AND (CAST($2 AS TEXT) IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";
        let rows = self.ledger.query(sql, vec![user.into(), before.into(), max.into()]).await?;
        rows.iter().map(entry).collect()
    }
}

fn entry(row: &Row) -> Result<Entry> {
    let text = |at| row.text(at).map(str::to_owned);
    Ok(Entry {
        id: text(0)?,
        at: row.time(1)?,
        user: text(2)?,
        token_id: text(3)?,
        action: text(4)?,
        target: text(5)?,
        outcome: text(6)?,
        address: text(7)?,
        request_id: text(8)?,
    })
}

/// The layer that writes a line for every call of a principal that may change something. The query is left out, as it may hold what is
/// nobody's business; the body always is.
pub async fn layer(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let who = request.extensions().get::<Principal>().cloned();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let Some(who) = who.filter(|_| !reads) else { return next.run(request).await };
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let action = format!("{} {route}", request.method());
    let mut event = Event::of(request.extensions(), who, action, request.uri().path());
    let response = next.run(request).await;
    if response.extensions().get::<InOwnRecords>().is_some() {
        return response;
    }
    event.outcome = response.status().as_u16().to_string();
    state.audit.record_done(event).await;
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    user: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/v1/audit`, for administrators.
pub fn routes() -> Router<AppState> {
    guard_scope(guard(Router::new().route("/api/v1/audit", get(read)), Role::Admin), SCOPE)
}

async fn read(State(state): State<AppState>, Query(filter): Query<Filter>) -> ApiResult<Json<Vec<Entry>>> {
    let max = filter.limit.unwrap_or(100).clamp(1, 1000);
    Ok(Json(state.audit.read(filter.user.as_deref(), filter.before.as_deref(), max).await?))
}
