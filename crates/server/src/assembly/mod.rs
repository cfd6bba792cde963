//! Builds drivers from the configuration, hands them to the systems as traits, and puts the edges on a socket. The one place that
//! names a driver.

mod aws;
mod blocks;
mod check;
mod credentials;
mod engines;
mod house;
mod installation;
mod machine;
mod no_fleet;
mod notice;
mod options;
mod patience;
mod postgres;
mod requests;
mod sources;
mod sql_wire;
mod tokens;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{ByteSize, Env, Error, Result, Timestamp};
use tidemill_batch::fleet::ScalePolicy;
use tidemill_batch::service::{BatchSettings, Manager, OpenInputs};
use tidemill_blocks::Blocks;
use tidemill_blocks::fleet::GroupSpec;
use tidemill_query::EngineSettings;
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tokio::net::TcpListener;

pub use check::{Checked, check};
pub use notice::instance_notice;
pub use options::ServeOptions;
pub use worker::{WorkerDrivers, worker_drivers};

use self::blocks::Drivers;
use self::patience::patiently;
use crate::config::{FleetDriver, FleetSection, Plan, ServerConfig, parse_address};
use crate::fleet::{Scaler, ScalerSettings};
use crate::internal::WorkerReach;
use crate::listen::{self, Identity, bind, check_exposure};
use crate::telemetry::follow_jobs;
use crate::{AppState, Edges, batch, console, fleet, grid, internal, metrics, objects, openapi, queues, router, s3, sql};

/// When the server was started.
#[derive(Debug, Clone, Copy)]
pub struct Started(pub Timestamp);

/// How long the last tasks of the process may take to end.
const JOIN: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT, then drains. `Invalid` for settings that cannot be, `Conflict` for an address that is taken,
/// `Unavailable` for a data folder that another process has, and for an engine that cannot be reached.
pub async fn serve(options: ServeOptions) -> Result<()> {
    let config = options.config()?;
    config.check()?;
    let env = Env::system();
    let data = config.server.data.clone();
    std::fs::create_dir_all(&data).map_err(|e| Error::from(e).context(format!("make the data folder {}", data.display())))?;
    let identity = listen::identity(&config, &env)?;
    let address = config.listen()?;
    check_exposure(address, identity.is_some(), config.server.insecure)?;
    let listener = bind(address).await?;
    let shutdown = Shutdown::new();
    let tasks = Tasks::new("server", shutdown.clone());
    let at = listener.local_addr()?;
    let s3 = bind_s3(&config).await?;
    let wire = sql_wire::bind(&config, identity.is_some()).await?;
    let server = Server::assemble(config, env, &tasks, identity.as_ref(), at, s3.as_ref()).await?;
    if let Some(listener) = wire {
        sql_wire::serve(&server.state, listener, identity.as_ref(), &tasks)?;
    }
    let outcome = server.run(listener, s3, identity, &tasks, &shutdown).await;
    server.stop(&tasks, &shutdown).await;
    outcome
}

struct Server {
    state: AppState,
    drivers: Drivers,
    url: String,
    manager: Manager,
    scaler: Scaler,
}

impl Server {
    async fn assemble(
        config: ServerConfig,
        env: Env,
        tasks: &Tasks,
        identity: Option<&Identity>,
        at: SocketAddr,
        s3: Option<&TcpListener>,
    ) -> Result<Self> {
        let scheme = if identity.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", reachable(at));
        let drivers = Drivers::open(&config, &env, &url, ca_file(&config, identity), s3_url(&config, s3)?).await?;
        let plan = drivers.plan;
        let blocks = drivers.blocks.clone();
        let price = config.fleet.price_per_slot_hour;
        let groups = if plan.fleet == FleetDriver::None { Vec::new() } else { machine::groups(&config.fleet)? };
        let sink = Arc::new(sql::ParquetSink { price });
        let state = async || AppState::new(blocks.clone(), env.clone(), tasks.clone(), config.clone(), identity.is_some()).await;
        let state = patiently(&env, "opening the ledger", state).await?;
        let settings = batch_settings(&state.config, &plan);
        let manager = async || Manager::new(blocks.clone(), env.clone(), settings.clone(), sink.clone()).await;
        let manager = patiently(&env, "opening the batch system", manager).await?;
        patiently(&env, "marking the engines as ours", async || installation::claim(&blocks, &plan, &env).await).await?;
        let data = state.config.server.data.clone();
        state.auth.ensure_admin_token(&data).await?;
        tokens::ensure_worker_token(&state.auth, &data).await?;
        let policies = ensure_groups(&blocks, groups, &state.config.fleet).await?;
        // Local workers are this manager's own; groups elsewhere are one manager's at a time.
        let shared = plan.is_shared() && plan.fleet != FleetDriver::Local;
        let scaler = Scaler::new(blocks.clone(), env.clone(), ScalerSettings { policies, shared });
        patiently(&env, "opening the scaler's records", async || scaler.migrate().await).await?;
        let spill = Some((data.join("spill"), ByteSize(8 << 30)));
        let settings = engine_settings(&state.config, spill);
        let engine = sql::engine(&blocks, &manager, env.clone(), settings, price)?;
        let state = state.with_service(manager.clone()).with_service(scaler.clone()).with_service(engine).with_service(Started(env.now()));
        let sources = sources::sources(&state.config.grid)?;
        let state = state.with_service(sources);
        Ok(Self { state, drivers, url, manager, scaler })
    }

    async fn run(
        &self,
        listener: TcpListener,
        s3: Option<TcpListener>,
        identity: Option<Identity>,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let ready = self.state.health.component("server");
        let (state, router) = (self.state.clone(), router(self.state.clone(), edges(&self.state)));
        tasks.spawn("http", Kind::Essential, async move { listen::serve(listener, router, identity, &state).await });
        if let Some(listener) = s3 {
            self.serve_s3(listener, tasks)?;
        }
        self.manager.start(tasks);
        self.scaler.start(tasks);
        self.keep_house(tasks);
        let (engines, end) = (self.drivers.engines(), shutdown.clone());
        tasks.spawn("count-requests", Kind::Request, async move { requests::publish(&engines, &end).await });
        let (handle, end) = (self.state.metrics.clone(), shutdown.clone());
        tasks.spawn("metrics", Kind::Request, async move { metrics::keep_up(&handle, &end).await });
        if self.state.traces.is_on() {
            let (traces, manager, ledger) = (self.state.traces.clone(), self.manager.clone(), Arc::clone(&self.state.blocks.ledger));
            let (env, shutdown) = (self.state.env.clone(), tasks.shutdown().clone());
            tasks.spawn("trace-jobs", Kind::Request, async move { follow_jobs(traces, manager, ledger, env, shutdown).await });
        }
        let data = &self.state.config.server.data;
        write_server_file(data, &self.url)?;
        ready.up();
        let (plan, url) = (self.drivers.plan, &self.url);
        let names = plan.named().map(|(block, driver)| format!("{block}={}", driver.as_str())).join(" ");
        tracing::info!(url, data = %data.display(), drivers = names, fleet = plan.fleet.as_str(), shared = plan.is_shared(), "ready");
        tokio::select! {
            biased;
            () = shutdown.draining() => Err(Error::internal("an essential part of the server failed; the log says which")),
            outcome = stop_signal() => outcome,
        }
    }

    fn serve_s3(&self, listener: TcpListener, tasks: &Tasks) -> Result<()> {
        let address = listener.local_addr()?;
        let blocks = &self.state.blocks;
        let keys = Arc::new(credentials::NoStaticKeys);
        let service =
            s3::s3_service(Arc::clone(&blocks.objects), Arc::clone(&blocks.grants), keys, self.state.env.clone(), s3::Settings::default())?;
        let inner = tasks.clone();
        tasks.spawn("s3", Kind::Essential, async move { s3::serve(listener, service, &inner).await });
        tracing::info!(%address, "S3 endpoint ready");
        Ok(())
    }

    /// Removes what clients of the S3 endpoint have begun and left.
    fn keep_house(&self, tasks: &Tasks) {
        let (blocks, env) = (self.state.blocks.clone(), self.state.env.clone());
        let (idle, shutdown) = (self.state.config.objects.keep_uploads.0, tasks.shutdown().clone());
        tasks.spawn("sweep-uploads", Kind::Request, async move { house::sweep_regularly(&blocks, &env, idle, &shutdown).await });
        if let Some(keep) = self.state.config.archive.keep() {
            let (blocks, env, shutdown) = (self.state.blocks.clone(), self.state.env.clone(), tasks.shutdown().clone());
            tasks.spawn("retire-archives", Kind::Request, async move { house::retire_archives(&blocks, &env, keep, &shutdown).await });
        }
    }

    /// Drains: workers finish or hand back what they have while the edges still answer them, then everything closes.
    async fn stop(&self, tasks: &Tasks, shutdown: &Shutdown) {
        tracing::info!("draining");
        shutdown.drain();
        if let Err(e) = self.drivers.drain(self.state.config.server.drain_timeout.0).await {
            tracing::warn!(error = %e.chain(), "workers may have been left behind");
        }
        shutdown.close();
        tasks.join(JOIN).await;
        self.drivers.close();
        drop(std::fs::remove_file(self.state.config.server.data.join(SERVER_FILE)));
        tracing::info!("stopped");
    }
}

fn engine_settings(config: &ServerConfig, spill: Option<(PathBuf, ByteSize)>) -> EngineSettings {
    EngineSettings {
        memory_limit: config.sql.memory,
        timeout: config.sql.statement_timeout.0,
        concurrency: usize::try_from(config.sql.concurrency).unwrap_or(usize::MAX),
        spill,
        default_schema: "batch".to_owned(),
        ..EngineSettings::default()
    }
}

fn batch_settings(config: &ServerConfig, plan: &Plan) -> BatchSettings {
    BatchSettings {
        sole: !plan.is_shared(),
        keep: config.batch.keep(),
        segment_age: config.batch.segment_age.0,
        max_receives: config.batch.max_receives,
        ..BatchSettings::default()
    }
}

/// Every edge of the server, over services that `state` holds.
pub fn edges(state: &AppState) -> Edges {
    let max_body = usize::try_from(state.config.limits.max_worker_body.bytes()).unwrap_or(usize::MAX);
    let reach = WorkerReach { inputs: Some(OpenInputs::new(Arc::clone(&state.blocks.ledger))), ..WorkerReach::default() };
    let mut blocks = state.blocks.clone();
    if let Ok(manager) = state.service::<Manager>() {
        blocks = manager.overhear(blocks);
    }
    Edges::new()
        .public(openapi::routes())
        .public(console::routes())
        .api(batch::routes())
        .api(grid::routes())
        .api(fleet::routes())
        .api(queues::routes())
        .api(credentials::routes())
        .streams(batch::streams())
        .streams(grid::streams())
        .streams(objects::routes())
        .streams(sql::routes())
        .workers(internal::routes(blocks, reach, state.env.clone(), state.shutdown.clone(), max_body))
}

/// The certificate that local workers trust: the one given, or the one made.
fn ca_file(config: &ServerConfig, identity: Option<&Identity>) -> Option<PathBuf> {
    identity?;
    let given = &config.tls.cert;
    Some(if given.as_os_str().is_empty() { config.server.data.join("tls").join("cert.pem") } else { given.clone() })
}

/// Makes the groups that are asked for, and lets those go that are no longer. The policy of each.
async fn ensure_groups(blocks: &Blocks, groups: Vec<GroupSpec>, fleet: &FleetSection) -> Result<BTreeMap<String, ScalePolicy>> {
    for old in blocks.fleet.groups().await? {
        if groups.iter().all(|g| g.name != old.spec.name) {
            blocks.fleet.ensure(GroupSpec { min: 0, max: 0, ..old.spec }).await?;
        }
    }
    let mut policies = BTreeMap::new();
    for group in groups {
        let (min, max, target, shrink_cooldown) = (group.min, group.max, fleet.target, fleet.shrink_cooldown);
        policies.insert(group.name.clone(), ScalePolicy { min, max, target, shrink_cooldown, ..ScalePolicy::default() });
        blocks.fleet.ensure(group).await?;
    }
    Ok(policies)
}

/// The S3 listener, if there is to be one.
async fn bind_s3(config: &ServerConfig) -> Result<Option<TcpListener>> {
    if config.server.s3_listen.is_empty() {
        return Ok(None);
    }
    let address = parse_address("server.s3-listen", &config.server.s3_listen)?;
    check_exposure(address, false, config.server.insecure)?;
    bind(address).await.map(Some)
}

/// What S3 clients are told to speak to.
fn s3_url(config: &ServerConfig, listener: Option<&TcpListener>) -> Result<Option<String>> {
    let Some(listener) = listener else { return Ok(None) };
    if !config.server.s3_url.is_empty() {
        return Ok(Some(config.server.s3_url.trim_end_matches('/').to_owned()));
    }
    Ok(Some(format!("http://{}", reachable(listener.local_addr()?))))
}

/// Where a caller on this machine reaches a listener.
fn reachable(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, at.port())
}

/// Tells the command line on this machine where the server is.
const SERVER_FILE: &str = "server.json";

fn write_server_file(data: &Path, url: &str) -> Result<()> {
    let text = serde_json::json!({ "url": url, "pid": std::process::id() }).to_string();
    let (draft, file) = (data.join("server.json.new"), data.join(SERVER_FILE));
    let write = || {
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, &file)
    };
    write().map_err(|e| Error::from(e).context(format!("write {}", file.display())))
}

async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        biased;
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
