//! The small file in which the fleet survives its manager.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

use super::process;
use super::state::GroupState;

/// Everything the fleet knows that must not be lost.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct FleetState {
    /// The run of the machine that the process numbers belong to.
    pub(super) boot: String,
    pub(super) groups: BTreeMap<String, GroupState>,
}

/// A process that was being started when the last manager went holds its lock until it has become another program. It is waited for.
const TRIES: u32 = 40;
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

/// `fleet.json`, and a lock beside it so that two managers never run the same members.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    written: Vec<u8>,
    _lock: File,
}

impl Record {
    /// Locks the folder's fleet and reads what there is.
    pub(super) fn open(data: &Path) -> Result<(Self, FleetState)> {
        fs::create_dir_all(data)?;
        let lock = lock(data)?;
        let path = data.join("fleet.json");
        let state = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                let advice = "end the workers by hand, then remove the file";
                Error::corrupt(format!("{} cannot be read as a fleet's record; {advice}", path.display())).with_source(e)
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => FleetState { boot: process::boot_id(), ..FleetState::default() },
            Err(e) => return Err(e.into()),
        };
        Ok((Self { path, written: Vec::new(), _lock: lock }, state))
    }

    /// Writes the state when it differs from what is in the file. The file is replaced as a whole.
    pub(super) fn save(&mut self, state: &FleetState) -> Result<()> {
        let bytes =
            serde_json::to_vec_pretty(state).map_err(|e| Error::internal("the fleet's record does not serialise").with_source(e))?;
        if bytes == self.written {
            return Ok(());
        }
        self.replace(&bytes).map_err(|e| Error::from(e).context(format!("write {}", self.path.display())))?;
        self.written = bytes;
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let part = self.path.with_extension("json.part");
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[expect(clippy::disallowed_methods, reason = "a manager opens its fleet before it does anything else")]
fn lock(data: &Path) -> Result<File> {
    let lock = File::create(data.join("fleet.lock"))?;
    for tried in 1.. {
        match lock.try_lock() {
            Ok(()) => break,
            Err(_) if tried < TRIES => std::thread::sleep(BETWEEN_TRIES),
            Err(_) => {
                let what = format!("the fleet in {} is run by another process; stop that one, or use another folder", data.display());
                return Err(Error::unavailable(what));
            }
        }
    }
    Ok(lock)
}
