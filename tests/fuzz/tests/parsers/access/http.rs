//! The whole HTTP interface, without a socket: requests of somebody who may only look, and of somebody who may do everything.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, Uri, header};
use tidemill_base::Env;
use tidemill_batch::service::{BatchSettings, Manager};
use tidemill_blocks::Blocks;
use tidemill_blocks::memory::{self, MemoryFleet, MemoryGrants, MemoryQueue, MemoryTable};
use tidemill_blocks_test::SqliteMemoryLedger;
use tidemill_fuzz::{Settings, fuzz, shape};
use tidemill_query::EngineSettings;
use tidemill_runtime::{Shutdown, Tasks};
use tidemill_server::assembly::Started;
use tidemill_server::auth::Role;
use tidemill_server::config::ServerConfig;
use tidemill_server::fleet::{Scaler, ScalerSettings};
use tidemill_server::{AppState, Edges, batch, fleet, grid, internal, objects, queues, router, sql};
use tower::ServiceExt as _;

use crate::block_on;

struct Mill {
    app: Router,
    blocks: Blocks,
    viewer: String,
    admin: String,
}

impl Mill {
    async fn start() -> Self {
        let env = Env::system();
        let blocks = Blocks {
            objects: memory::objects(),
            queue: Arc::new(MemoryQueue::new(env.clone())),
            table: Arc::new(MemoryTable::new(env.clone())),
            ledger: Arc::new(SqliteMemoryLedger::open().unwrap()),
            grants: Arc::new(MemoryGrants::new(env.clone())),
            fleet: Arc::new(MemoryFleet::new(env.clone())),
        };
        let tasks = Tasks::new("server", Shutdown::new());
        let mut config = ServerConfig::default();
        config.limits.requests_per_second = 0;
        let state = AppState::new(blocks.clone(), env.clone(), tasks, config, false).await.unwrap();
        let manager =
            Manager::new(blocks.clone(), env.clone(), BatchSettings::default(), Arc::new(sql::ParquetSink { price: 0.0 })).await.unwrap();
        let scaler = Scaler::new(blocks.clone(), env.clone(), ScalerSettings::default());
        let engine = sql::engine(&blocks, &manager, env.clone(), EngineSettings::default(), 0.0).unwrap();
        let state = state.with_service(manager).with_service(scaler).with_service(engine).with_service(Started(env.now()));
        let mut tokens = Vec::new();
        for (user, role) in [("vera", Role::Viewer), ("root", Role::Admin)] {
            state.auth.create_user(user, role).await.unwrap();
            tokens.push(state.auth.create_token(user, role, &[], None).await.unwrap().1.expose().to_owned());
        }
        let workers = internal::routes(blocks.clone(), internal::WorkerReach::default(), env, state.shutdown.clone(), 1 << 20);
        let edges = Edges::new()
            .api(batch::routes())
            .api(grid::routes())
            .api(queues::routes())
            .api(fleet::routes())
            .streams(objects::routes())
            .streams(sql::routes());
        let app = router(state, edges.workers(workers));
        let (admin, viewer) = (tokens.remove(1), tokens.remove(0));
        Self { app, blocks, viewer, admin }
    }

    /// Everything that a viewer must not change.
    async fn fingerprint(&self) -> String {
        let count = |table: &'static str| async move {
            let rows = self.blocks.ledger.query(&format!("SELECT count(*) FROM {table}"), Vec::new()).await.unwrap();
            rows[0].int(0).unwrap()
        };
        let objects: Vec<_> = futures::TryStreamExt::try_collect(self.blocks.objects.list(None)).await.unwrap();
        let objects: Vec<String> = objects.into_iter().map(|m: object_store::ObjectMeta| m.location.to_string()).collect();
        let queues = self.blocks.queue.list().await.unwrap().len();
        format!("{objects:?} {queues} {} {} {}", count("batch_jobs").await, count("auth_users").await, count("auth_tokens").await)
    }
}

/// A request of HTTP in short: `METHOD TARGET`, headers, an empty line, the body. `as root` before the method makes it the
/// administrator's.
#[test]
fn http() {
    let tokens = &[
        "as root ",
        "GET /api/v1/batch/jobs",
        "POST /api/v1/batch/jobs",
        "DELETE ",
        "PUT ",
        "/tasks",
        "/api/v1/grid/sessions",
        "/tasks/cancel",
        "{\"tasks\":[{\"first\":0,\"count\":9}]}",
        "/logs",
        "/outputs",
        "?limit=",
        "?cursor=",
        "&state=failed",
        "/../",
        "%2F",
        "%00",
        "/internal/v1/queue/send",
        "\ntidemill-protocol: 1",
        "\nauthorization: Bearer tm_",
        "\ncookie: tidemill-session=",
        "\norigin: http://evil",
        "\nrange: bytes=0-3",
        "\nif-none-match: *",
        "{\"sql\":\"SELECT 1\"}",
        "\n\n",
    ];
    let settings = Settings { runs: 4_000, tokens, memory: 64 << 20, memory_per_byte: 4096, ..Settings::default() };
    let mill = block_on(Mill::start());
    fuzz("http", settings, move |input| {
        let rooted = input.strip_prefix(b"as root ");
        let Some(request) = parsed(rooted.unwrap_or(input), if rooted.is_some() { &mill.admin } else { &mill.viewer }) else {
            return shape("no request");
        };
        let reads = request.method().is_safe();
        let before = block_on(mill.fingerprint());
        let (status, body) = block_on(async {
            let response = mill.app.clone().oneshot(request).await.unwrap();
            let status = response.status();
            (status, to_bytes(response.into_body(), 16 << 20).await.unwrap_or_default())
        });
        let text = String::from_utf8_lossy(&body);
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
        if rooted.is_none() || reads {
            assert_eq!(block_on(mill.fingerprint()), before, "something was changed by {status}: {text}");
        }
        if status.is_client_error() && !reads {
            let envelope: serde_json::Value = serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{status}: {e}: {text}"));
            assert!(envelope["error"]["kind"].is_string() && envelope["error"]["request_id"].is_string(), "{text}");
        }
        shape(format_args!("{status} {}", text.get(..60).unwrap_or_default()))
    });
}

fn parsed(text: &[u8], token: &str) -> Option<Request<Body>> {
    let at = text.windows(2).position(|w| w == b"\n\n").unwrap_or(text.len());
    let head = std::str::from_utf8(&text[..at]).ok()?;
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    // A stream of events does not end by itself.
    if target.contains("events") || target.contains("receive") || target.contains("feed") {
        return None;
    }
    let uri: Uri = target.parse().ok()?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(uri);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request = request.header(name, value.trim());
    }
    if !head.to_ascii_lowercase().contains("authorization") {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if !head.to_ascii_lowercase().contains("content-type") {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Body::from(text.get(at + 2..).unwrap_or_default().to_vec())).ok()
}
