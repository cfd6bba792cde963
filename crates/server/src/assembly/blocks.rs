//! The embedded drivers in one data folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_base::{Env, Error, Result};
use tidemill_blocks::Blocks;
use tidemill_embedded::Embedded;
use tidemill_embedded::fleet::{LocalFleet, LocalFleetSettings, MemberCommand};
use tidemill_embedded::grants::{EmbeddedGrants, load_or_create_key};
use tidemill_embedded::ledger::SqliteLedger;

use super::tokens::WORKER_TOKEN_FILE;
use crate::config::ServerConfig;

/// The drivers, and the parts of them that are stopped by name.
pub(super) struct Drivers {
    pub blocks: Blocks,
    pub embedded: Embedded,
    pub fleet: Arc<LocalFleet>,
}

impl Drivers {
    /// Opens the data folder. `url` is where workers find the manager, `ca` the certificate they trust, `s3` where S3 clients find
    /// the objects.
    pub(super) fn open(config: &ServerConfig, env: &Env, url: &str, ca: Option<PathBuf>, s3: Option<String>) -> Result<Self> {
        let data = &config.server.data;
        let embedded = Embedded::open(data, env.clone())?;
        let ledger = Arc::new(SqliteLedger::open(data.join("ledger.sqlite"), env.clone())?);
        let key = load_or_create_key(data.join("grants.key"), env)?;
        let grants = Arc::new(EmbeddedGrants::new(key, env.clone(), s3));
        let fleet = Arc::new(LocalFleet::open(LocalFleetSettings::new(data.clone(), member(data, url, ca.as_deref())?), env.clone())?);
        let blocks =
            Blocks { objects: embedded.objects(), queue: embedded.queue(), table: embedded.table(), ledger, grants, fleet: fleet.clone() };
        Ok(Self { blocks, embedded, fleet })
    }
}

/// Local workers are this same program.
fn member(data: &Path, url: &str, ca: Option<&Path>) -> Result<MemberCommand> {
    let program = std::env::current_exe().map_err(|e| Error::from(e).context("find this program to start workers with"))?;
    let data = std::path::absolute(data).map_err(|e| Error::from(e).context(format!("find {}", data.display())))?;
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let scratch = data.join("scratch");
    let mut args: Vec<String> =
        ["worker", "--manager", url, "--class", "{group}", "--id", "{member}", "--slots", "{slots}"].map(str::to_owned).into();
    args.extend(["--memory".to_owned(), "{memory}".to_owned(), "--token-file".to_owned(), path(&data.join(WORKER_TOKEN_FILE))]);
    args.extend(["--scratch".to_owned(), path(&scratch), "{offers}".to_owned()]);
    if let Some(ca) = ca {
        args.extend(["--ca".to_owned(), path(ca)]);
    }
    Ok(MemberCommand { program, args, env: BTreeMap::new() })
}
