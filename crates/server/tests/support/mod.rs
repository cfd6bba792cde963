//! A server in this process, on a real socket, over in-memory drivers.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses a part of it, and a failure here is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::Env;
use tidemill_blocks::Blocks;
use tidemill_blocks::memory::{self, MemoryFleet, MemoryGrants, MemoryQueue, MemoryTable};
use tidemill_blocks_test::SqliteMemoryLedger;
use tidemill_remote::{Remote, RemoteSettings};
use tidemill_runtime::{Kind, Shutdown, Tasks, sleep};
use tidemill_server::auth::Role;
use tidemill_server::config::ServerConfig;
use tidemill_server::internal::{self, WorkerReach};
use tidemill_server::listen::{self, Identity};
use tidemill_server::{AppState, Edges, router};

pub struct Mill {
    pub state: AppState,
    pub url: String,
    pub admin: String,
}

pub fn blocks(env: &Env) -> Blocks {
    Blocks {
        objects: memory::objects(),
        queue: Arc::new(MemoryQueue::new(env.clone())),
        table: Arc::new(MemoryTable::new(env.clone())),
        ledger: Arc::new(SqliteMemoryLedger::open().unwrap()),
        grants: Arc::new(MemoryGrants::new(env.clone())),
        fleet: Arc::new(MemoryFleet::new(env.clone())),
    }
}

/// A server with the ordinary settings and no edges but the workers'.
pub async fn start() -> Mill {
    start_with(|_| {}, Edges::new(), None).await
}

pub async fn start_with(edit: impl FnOnce(&mut ServerConfig), edges: Edges, tls: Option<Identity>) -> Mill {
    let env = Env::system();
    start_on(env, edit, edges, tls).await
}

pub async fn start_on(env: Env, edit: impl FnOnce(&mut ServerConfig), edges: Edges, tls: Option<Identity>) -> Mill {
    let mut config = ServerConfig::default();
    edit(&mut config);
    let tasks = Tasks::new("server", Shutdown::new());
    let state = AppState::new(blocks(&env), env.clone(), tasks, config, tls.is_some()).await.unwrap();
    state.auth.create_user("root", Role::Admin).await.unwrap();
    let (_, admin) = state.auth.create_token("root", Role::Admin, &[], None).await.unwrap();
    let max = usize::try_from(state.config.limits.max_worker_body.bytes()).unwrap();
    let workers = internal::routes(state.blocks.clone(), WorkerReach::default(), env, state.shutdown.clone(), max);
    let app = router(state.clone(), edges.workers(workers));
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let serving = state.clone();
    state.tasks.spawn("server", Kind::Essential, async move { listen::serve(listener, app, tls, &serving).await });
    Mill { state, url, admin: admin.expose().to_owned() }
}

impl Mill {
    /// A connection with the administrator's token, which reaches everything.
    pub async fn remote(&self) -> Remote {
        Remote::connect(self.settings(&self.admin)).await.unwrap()
    }

    /// A connection with a worker's token.
    pub async fn worker(&self) -> Remote {
        Remote::connect(self.settings(&self.token(Role::Worker).await)).await.unwrap()
    }

    pub fn settings(&self, token: &str) -> RemoteSettings {
        let mut settings = RemoteSettings::new(&self.url, token);
        settings.part_size = 64 << 10;
        settings
    }

    /// A fresh token of this role for a user of its own.
    pub async fn token(&self, role: Role) -> String {
        let user = self.state.env.id("user");
        self.state.auth.create_user(&user, role).await.unwrap();
        self.state.auth.create_token(&user, role, &[], None).await.unwrap().1.expose().to_owned()
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// The envelope's kind and message.
pub async fn envelope(response: reqwest::Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body: serde_json::Value = response.json().await.unwrap();
    let error = &body["error"];
    assert!(error["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
    (status, error["kind"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
}

/// Waits until `done`, five seconds at most.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..250 {
        if done().await {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come about");
}
