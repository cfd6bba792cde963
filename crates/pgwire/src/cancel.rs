//! Requests to end the statement of another connection: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_base::Env;
use tokio::sync::watch;

/// The sessions that can be asked, by their numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancels(Arc<Mutex<BTreeMap<u32, Session>>>);

#[derive(Debug)]
struct Session {
    secret: u32,
    asked: watch::Sender<u64>,
}

/// A session's entry; it goes with it.
#[derive(Debug)]
pub(crate) struct Key {
    all: Cancels,
    pub(crate) process: u32,
    pub(crate) secret: u32,
    pub(crate) asked: watch::Receiver<u64>,
}

impl Cancels {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry with a number that no other has, and a secret.
    pub(crate) fn enter(&self, env: &Env) -> Key {
        let positive = || u32::try_from(env.random_below(u64::from(u32::MAX / 2)) + 1).unwrap_or(1);
        let mut sessions = self.lock();
        let mut process = positive();
        while sessions.contains_key(&process) {
            process = positive();
        }
        let secret = env.secret(4).0.iter().fold(0, |n, b| n << 8 | u32::from(*b));
        let (asked, receiver) = watch::channel(0);
        sessions.insert(process, Session { secret, asked });
        Key { all: self.clone(), process, secret, asked: receiver }
    }

    /// Asks a session to end its statement. Nobody is told whether there is one.
    pub(crate) fn ask(&self, process: u32, secret: u32) {
        if let Some(session) = self.lock().get(&process)
            && session.secret == secret
        {
            session.asked.send_modify(|n| *n += 1);
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.all.lock().remove(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::Timestamp;

    #[test]
    fn only_who_knows_the_secret_is_heard_and_a_session_takes_its_entry_along() {
        let (env, _) = Env::manual(Timestamp::from_millis(0), 1);
        let all = Cancels::default();
        let mut key = all.enter(&env);
        all.ask(key.process, key.secret.wrapping_add(1));
        all.ask(key.process.wrapping_add(1), key.secret);
        assert_eq!(*key.asked.borrow_and_update(), 0);
        all.ask(key.process, key.secret);
        assert_eq!(*key.asked.borrow_and_update(), 1);
        drop(key);
        assert!(all.lock().is_empty());
    }
}
