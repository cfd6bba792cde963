//! The managers that can be reached, as their edges are: who asks one is served by its process, with what that remembers, and by its faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_base::Env;
use tidemill_batch::service::Manager;
use tidemill_blocks::Blocks;

/// Managers that live, by their number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doors(Arc<Mutex<BTreeMap<usize, Manager>>>);

impl Doors {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Manager>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, n: usize, manager: &Manager) {
        self.lock().insert(n, manager.clone());
    }

    pub(crate) fn close(&self, n: usize) {
        self.lock().remove(&n);
    }

    /// One that lives, or two times out of five none.
    fn some(&self, env: &Env) -> Option<Manager> {
        let coin = env.random_below(5);
        let managers = self.lock();
        let at = usize::try_from(env.random_below(managers.len().max(1) as u64)).unwrap_or(0);
        managers.values().nth(at).filter(|_| coin < 3).cloned()
    }

    /// Whom to ask this time: one that lives, or `own`, which never leads.
    pub(crate) fn any(&self, own: &Manager, env: &Env) -> Manager {
        self.some(env).unwrap_or_else(|| own.clone())
    }

    /// The blocks as a worker has them through some manager's edge, or by itself.
    pub(crate) fn blocks(&self, blocks: &Blocks, env: &Env) -> Blocks {
        self.some(env).map_or_else(|| blocks.clone(), |manager| manager.overhear(blocks.clone()))
    }
}
