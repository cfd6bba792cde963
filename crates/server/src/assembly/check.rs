//! `tidemill check`: whether everything is there that the configuration speaks of, before anybody relies on it.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_batch::service::{BatchSettings, Needs};
use tidemill_batch::store;
use tidemill_blocks::check::{Finding, Found};
use tidemill_blocks::ledger::{Ledger, Migration};
use tidemill_blocks::queue::Queue;
use tidemill_blocks::schedule;
use tidemill_blocks::table::{Key, Table};

use super::aws;
use super::engines::Engines;
use crate::auth;
use crate::config::{Driver, Plan, ServerConfig};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Where: `folder`, `postgres`, `aws`, or `batch` for what the batch system keeps on them.
    pub place: String,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Looks at everything the configuration speaks of; with `create`, makes what is missing. `Invalid` for a configuration that cannot be.
pub async fn check(config: &ServerConfig, env: &Env, create: bool) -> Result<Vec<Checked>> {
    config.check()?;
    let plan = config.plan()?;
    let mut out = place("folder", vec![folder(&config.server.data, create)]);
    let mut reached = Vec::new();
    for driver in [Driver::Postgres, Driver::Aws].into_iter().filter(|d| plan.uses(*d)) {
        let (found, engines) = engine(config, env, &plan, driver, create).await?;
        out.extend(place(driver.as_str(), found));
        reached.extend(engines);
    }
    // What lies on an engine that is not there cannot be looked for.
    if out.iter().all(|c| c.finding.found.is_ready()) {
        for engines in &reached {
            out.extend(place("batch", systems(config, &plan, engines, create).await));
        }
    }
    Ok(out)
}

fn place(name: &str, findings: Vec<Finding>) -> Vec<Checked> {
    findings.into_iter().map(|finding| Checked { place: name.to_owned(), finding }).collect()
}

/// The data folder: every manager has one for its tokens and scratch space, whatever the drivers.
fn folder(data: &Path, create: bool) -> Finding {
    let what = format!("data folder {}", data.display());
    let made = !data.exists();
    if made && !create {
        return Finding::new(what, Found::Missing, "`tidemill serve` makes it, as does `tidemill check --create`");
    }
    let probe = data.join(format!(".check-{}", std::process::id()));
    let tried = std::fs::create_dir_all(data).and_then(|()| std::fs::write(&probe, "")).and_then(|()| std::fs::remove_file(&probe));
    match tried {
        Ok(()) if made => Finding::new(what, Found::Made, ""),
        Ok(()) => Finding::ready(what),
        Err(e) => Finding::new(what, Found::Denied, format!("nothing can be written there: {e}")),
    }
}

/// One engine, and the connection to it if there is one.
async fn engine(
    config: &ServerConfig,
    env: &Env,
    plan: &Plan,
    driver: Driver,
    create: bool,
) -> Result<(Vec<Finding>, Option<(Driver, Engines)>)> {
    let engines = match Engines::only(config, env, driver).await {
        Ok(engines) => engines,
        Err(e) if e.kind() == ErrorKind::Invalid => return Err(e),
        Err(e) => return Ok((vec![failed(format!("connection to {}", driver.as_str()), &e)], None)),
    };
    let mut found = Vec::new();
    if let Some(postgres) = &engines.postgres {
        found.extend(postgres.check(create).await);
    }
    if let Some(found_aws) = &engines.aws {
        let groups: Vec<_> = config.fleet.groups().into_iter().map(|g| g.class).collect();
        found.extend(aws::check(found_aws, plan, &groups, create).await);
    }
    Ok((found, Some((driver, engines))))
}

fn failed(what: String, e: &Error) -> Finding {
    let found = match e.kind() {
        ErrorKind::Denied => Found::Denied,
        ErrorKind::NotFound => Found::Missing,
        _ => Found::Unreachable,
    };
    Finding::new(what, found, e.chain())
}

/// What our own systems keep on an engine: queues, tables, and records in the ledger.
async fn systems(config: &ServerConfig, plan: &Plan, (driver, engines): &(Driver, Engines), create: bool) -> Vec<Finding> {
    let classes = config.fleet.groups().into_iter().map(|g| g.class).collect();
    let settings = BatchSettings { classes, max_receives: config.batch.max_receives, ..BatchSettings::default() };
    let needs = Needs::of(&settings);
    let mut out = Vec::new();
    if plan.queue == *driver {
        match engines.queue(plan.queue) {
            Ok(queue) => out.extend(queues(&queue, &needs, create).await),
            Err(e) => out.push(failed("queues".to_owned(), &e)),
        }
    }
    if plan.table == *driver {
        match engines.table(plan.table) {
            Ok(table) => out.extend(tables(&table, &needs, create).await),
            Err(e) => out.push(failed("tables".to_owned(), &e)),
        }
    }
    if plan.ledger == *driver {
        match engines.ledger(plan.ledger, &config.server.data, &Env::system()) {
            Ok(ledger) => out.extend(records(&ledger, create).await),
            Err(e) => out.push(failed("records".to_owned(), &e)),
        }
    }
    out
}

/// What was found of something, and what came of making it.
async fn settle(what: String, there: Result<bool>, create: bool, make: impl AsyncFnOnce() -> Result<()>) -> Finding {
    match there {
        Ok(true) => Finding::ready(what),
        Ok(false) if !create => Finding::new(what, Found::Missing, "the server makes it when it starts, as does `tidemill check --create`"),
        Ok(false) => match make().await {
            Ok(()) => Finding::new(what, Found::Made, ""),
            Err(e) => failed(what, &e),
        },
        Err(e) => failed(what, &e),
    }
}

async fn queues(queue: &Arc<dyn Queue>, needs: &Needs, create: bool) -> Vec<Finding> {
    let known = match queue.list().await {
        Ok(known) => known,
        Err(e) => return vec![failed("queues".to_owned(), &e)],
    };
    let mut out = Vec::new();
    for (name, settings) in &needs.queues {
        let there = Ok(known.iter().any(|q| q.name == *name));
        out.push(settle(format!("queue {name}"), there, create, async || queue.ensure(name, settings.clone()).await).await);
    }
    out
}

async fn tables(table: &Arc<dyn Table>, needs: &Needs, create: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    for name in &needs.tables {
        let there = match table.get(name, &Key::new("check", "")).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        };
        out.push(settle(format!("table {name}"), there, create, async || table.ensure(name).await).await);
    }
    out
}

/// The ledger's tables, by one of each system's.
const RECORDS: [(&str, &str, &[Migration]); 4] = [
    ("batch's records", "batch_sweeps", store::MIGRATIONS),
    ("leases", "schedule_leases", schedule::MIGRATIONS),
    ("users and tokens", "auth_tokens", auth::MIGRATIONS),
    ("the audit log", "audit_log", crate::audit::MIGRATIONS),
];

async fn records(ledger: &Arc<dyn Ledger>, create: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    for (what, table, migrations) in RECORDS {
        let there = match ledger.query(&format!("SELECT COUNT(*) FROM {table}"), vec![]).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Denied) => Err(e),
            Err(_) => Ok(false),
        };
        out.push(settle(what.to_owned(), there, create, async || ledger.migrate(migrations).await).await);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn with_embedded_drivers_it_is_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = ServerConfig::default();
        config.server.data = folder.path().join("mill");
        let look = async |create| check(&config, &Env::system(), create).await.unwrap().remove(0).finding;
        assert_eq!(look(false).await.found, Found::Missing);
        assert_eq!(look(true).await.found, Found::Made);
        assert_eq!(look(false).await.found, Found::Ready);
    }

    #[tokio::test]
    async fn what_the_batch_system_needs_is_named_and_made() {
        let env = Env::system();
        let blocks = tidemill_blocks_test::sim::memory_blocks(&env).unwrap();
        let needs = Needs::of(&BatchSettings::default());
        let look = async |create| {
            let mut out = queues(&blocks.queue, &needs, create).await;
            out.extend(tables(&blocks.table, &needs, create).await);
            out.extend(records(&blocks.ledger, create).await);
            out
        };
        let missing = look(false).await;
        assert!(missing.iter().all(|f| f.found == Found::Missing), "{missing:?}");
        assert!(missing.iter().any(|f| f.what == "queue batch.done") && missing.iter().any(|f| f.what == "table batch-state"));
        assert!(look(true).await.iter().all(|f| f.found == Found::Made));
        assert!(look(false).await.iter().all(|f| f.found == Found::Ready));
    }
}
