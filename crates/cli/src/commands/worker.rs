//! `tidemill worker`.

mod blocks;
mod stop;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tidemill_base::{ByteSize, Error, Result};
use tidemill_blocks::fleet::Offers;
use tidemill_client::Found;
use tidemill_remote::RemoteSettings;
use tidemill_runtime::{Kind, LogFormat, Shutdown, Tasks, init_logs};
use tidemill_server::ServeOptions;
use tidemill_server::config::{FleetDriver, ServerConfig};
use tidemill_worker::{EngineUser, Runners, WorkerNode, WorkerSettings};

use super::engine;
use super::serve::key_value;
use crate::context::Context;
use crate::exit::Exit;

/// How long the last messages of the process may take.
const JOIN: Duration = Duration::from_secs(15);

/// Variables through which a worker on engines gets what reaches them: no job gets those as a secret.
const ENGINE_VARIABLES: [&str; 2] = ["AWS_", "PG"];

/// Take tasks and run them: through a manager, or with --config or --drivers straight from the engines. SIGTERM and Ctrl-C drain it: what runs is finished or handed back.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// The manager's URL; the server of this machine if left out. With --config or --drivers, whom to ask for tasks' credentials alone.
    #[arg(long, value_name = "URL")]
    manager: Option<String>,
    /// Take work straight from the engines that this configuration file names, without a manager in between.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The same, with the engines that variables such as TIDEMILL_DRIVERS_DEFAULT and TIDEMILL_POSTGRES_URL name.
    #[arg(long)]
    drivers: bool,
    /// Tasks of one CPU that it runs at once [default: as many as the machine has processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: Option<u32>,
    /// Memory that it offers to tasks [default: three quarters of the machine's].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// A named resource that it offers, such as gpu=1.
    #[arg(long = "offer", value_name = "NAME=N", value_parser = key_value)]
    offers: Vec<(String, String)>,
    /// The class of work that it takes.
    #[arg(long, default_value = "default")]
    class: String,
    /// Its name, unique among all workers [default: made up].
    #[arg(long)]
    id: Option<String>,
    /// A file with a token of the role `worker` [default: TIDEMILL_TOKEN].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates in PEM to trust: the manager's own when it generated one.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where the folders of running tasks go [default: the system's folder for temporary files].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// The Python that engines run, with the libraries that functions need [default: the first python3 on the path].
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Who engines run as: a name, or numbers as in 1000:1000. Needs a worker that is root; without it they run as the worker does.
    #[arg(long, value_name = "USER")]
    engine_user: Option<String>,
    /// Drain when EC2 says that this instance will be taken away, by Auto Scaling or as a spot instance. On by itself where the configuration
    /// says that groups of workers run there.
    #[arg(long)]
    watch_notices: bool,
}

/// The node as a task of its own: on the main thread it would have to be woken, across threads, for all that it waits for.
async fn run(node: WorkerNode, tasks: &Tasks) -> Result<()> {
    let (done, ended) = tokio::sync::oneshot::channel();
    tasks.spawn("node", Kind::Essential, async move {
        drop(done.send(node.run().await));
        Ok(())
    });
    ended.await.unwrap_or_else(|_| Err(Error::internal("the worker's main task has ended without a word")))
}

impl Worker {
    pub(crate) async fn run(self, cx: &Context, log: Option<String>) -> Result<Exit> {
        init_logs(log.as_deref().unwrap_or("info"), LogFormat::Text);
        let mut settings = self.settings(cx)?;
        let engines = self.engines(cx)?;
        let shutdown = Shutdown::new();
        let tasks = Tasks::new("worker", shutdown.clone());
        stop::follow_signals(&tasks)?;
        if self.watch_notices || engines.as_ref().is_some_and(|c| c.plan().is_ok_and(|plan| plan.fleet == FleetDriver::Aws)) {
            stop::follow_notices(&tasks);
        }
        let found = match &engines {
            None => blocks::of_manager(self.manager(cx)?, &shutdown).await?,
            Some(config) => {
                settings.own_variables.extend(ENGINE_VARIABLES.map(str::to_owned));
                settings.region = region(config);
                let manager = self.manager.as_ref().map(|_| self.manager(cx)).transpose()?;
                blocks::of_engines(config, manager, &cx.env, &shutdown).await?
            }
        };
        let Some(blocks) = found else { return Ok(Exit::Success) };
        tracing::info!(worker = settings.id, class = settings.class, slots = settings.offers.slots, "taking tasks");
        let node = WorkerNode::new(settings, blocks, &Runners::processes(), cx.env.clone(), tasks.clone())?;
        let outcome = run(node, &tasks).await;
        shutdown.drain();
        shutdown.close();
        tasks.join(JOIN).await;
        outcome.map(|()| Exit::Success)
    }

    fn settings(&self, cx: &Context) -> Result<WorkerSettings> {
        let slots = self.slots.unwrap_or_else(processors);
        let memory = self.memory.map_or_else(|| machine_memory() / 4 * 3, ByteSize::bytes);
        let offers = Offers { slots, memory, named: named(&self.offers)? };
        let id = self.id.clone().unwrap_or_else(|| cx.env.id("w"));
        // Its own folder within the one that was named, since what is found in it is removed.
        let root = self.scratch.clone().unwrap_or_else(|| std::env::temp_dir().join("tidemill-workers"));
        let mut settings = WorkerSettings::new(&id, &self.class, root.join(&id), offers);
        settings.host = host();
        settings.engines.python = self.python.clone();
        settings.engines.user = self.engine_user.as_deref().map(EngineUser::parse).transpose()?;
        settings.engines.others.extend(engine::programs()?);
        Ok(settings)
    }

    /// The engines to take work from, if it is not the manager that is asked for it.
    fn engines(&self, cx: &Context) -> Result<Option<ServerConfig>> {
        if self.config.is_none() && !self.drivers {
            return Ok(None);
        }
        let options = ServeOptions { config: self.config.clone(), data: cx.data.clone(), flags: Vec::new() };
        options.config().map(Some)
    }

    /// Where the manager is, from flags, then as any command finds its server.
    fn manager(&self, cx: &Context) -> Result<RemoteSettings> {
        let read = |file: &PathBuf| std::fs::read(file).map_err(|e| Error::from(e).context(format!("read {}", file.display())));
        let file_token = self.token_file.as_ref().map(|f| read(f).map(|t| String::from_utf8_lossy(&t).trim().to_owned())).transpose()?;
        let found = match &self.manager {
            Some(url) => {
                let token = file_token.clone().or_else(|| std::env::var("TIDEMILL_TOKEN").ok()).ok_or_else(|| {
                    Error::invalid("no token; give --token-file, or set TIDEMILL_TOKEN; `tidemill token create --role worker` makes one")
                })?;
                Found { url: url.clone(), token, ca: None }
            }
            None => cx.discovery.find(cx.data.as_deref())?,
        };
        let settings = RemoteSettings::new(found.url, file_token.unwrap_or(found.token));
        match self.ca.as_ref().map(read).transpose()?.or(found.ca) {
            Some(ca) => Ok(settings.with_ca(ca)),
            None => Ok(settings),
        }
    }
}

fn named(offers: &[(String, String)]) -> Result<BTreeMap<String, u64>> {
    let read = |(name, amount): &(String, String)| {
        let n = amount.parse().map_err(|_| Error::invalid(format!("--offer {name}={amount}: `{amount}` is not a whole number")))?;
        Ok((name.clone(), n))
    };
    offers.iter().map(read).collect()
}

/// Processors of this machine that the process may use.
pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Memory of this machine, bytes; where that cannot be found, as much as nothing is refused for.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(1 << 40, |kib| kib << 10)
}

/// The region that S3 clients of tasks are told.
fn region(config: &ServerConfig) -> String {
    let named = Some(config.aws.region.clone()).filter(|r| !r.is_empty());
    let variable = |name: &str| std::env::var(name).ok().filter(|r| !r.is_empty());
    named.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".to_owned())
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    name.map(|n| n.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        worker: Worker,
    }

    fn worker(words: &[&str]) -> Worker {
        Only::try_parse_from(std::iter::once("worker").chain(words.iter().copied())).unwrap().worker
    }

    #[test]
    fn each_worker_has_a_folder_of_its_own() {
        let cx = Context::new(None, Format::Table);
        let w = worker(&["--id", "m1", "--scratch", "/s", "--slots", "3", "--memory", "2GiB", "--offer", "gpu=1"]);
        let settings = w.settings(&cx).unwrap();
        assert_eq!(settings.scratch, PathBuf::from("/s/m1"));
        assert_eq!((settings.offers.slots, settings.offers.memory, settings.offers.named["gpu"]), (3, 2 << 30, 1));
        assert!(worker(&["--offer", "gpu=many"]).settings(&cx).unwrap_err().message().contains("`many`"));
    }

    #[test]
    fn the_token_comes_from_its_file() {
        let cx = Context::new(None, Format::Table);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "tm_w\n").unwrap();
        let settings = worker(&["--manager", "http://a:1", "--token-file", &file.display().to_string()]).manager(&cx).unwrap();
        assert_eq!((settings.url.as_str(), settings.token.as_str()), ("http://a:1", "tm_w"));
        let missing = worker(&["--manager", "http://a:1", "--token-file", "/none"]).manager(&cx).unwrap_err();
        assert!(missing.message().contains("/none"), "{missing}");
    }
}
