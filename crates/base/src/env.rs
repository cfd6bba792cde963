//! The environment a piece of the system lives in: its clock, its randomness, its ids.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Clock, ManualClock, SystemClock, Timestamp};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Clock and randomness in one cheap handle. Clones share both.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    rng: Arc<Mutex<fastrand::Rng>>,
    seeded: bool,
}

/// Random bytes that are a secret: they do not print.
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

impl Env {
    /// The machine's clock and randomness.
    pub fn system() -> Self {
        let mut seed = [0_u8; 8];
        getrandom::fill(&mut seed).expect("the operating system gives randomness");
        Self::build(Arc::new(SystemClock), u64::from_le_bytes(seed), false)
    }

    /// Everything follows from `seed` and the given clock. For the simulator and for tests; its secrets are not secret.
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self::build(clock, seed, true)
    }

    /// A seeded environment whose clock moves only by hand.
    pub fn manual(at: Timestamp, seed: u64) -> (Self, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(at));
        (Self::seeded(clock.clone(), seed), clock)
    }

    fn build(clock: Arc<dyn Clock>, seed: u64, seeded: bool) -> Self {
        Self { clock, rng: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))), seeded }
    }

    /// The present wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A uniform number; not for secrets.
    pub fn random_u64(&self) -> u64 {
        self.with_rng(|r| r.u64(..))
    }

    /// A uniform number in `0..below`; zero when `below` is zero. Not for secrets.
    pub fn random_below(&self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.with_rng(|r| r.u64(0..below)) }
    }

    /// A uniform number in `[0, 1)`; not for secrets.
    pub fn random_unit(&self) -> f64 {
        self.with_rng(fastrand::Rng::f64)
    }

    /// A fresh identifier: `prefix`, then 9 characters of time (milliseconds) and 6 of randomness, in Crockford's base 32 in
    /// lower case. Identifiers of one prefix sort by the time of their making.
    pub fn id(&self, prefix: &str) -> String {
        let mut out = String::with_capacity(prefix.len() + 15);
        out.push_str(prefix);
        let ms = self.now().millis().unsigned_abs();
        push_base32(&mut out, ms, 9);
        push_base32(&mut out, self.random_u64(), 6);
        out
    }

    /// `len` bytes fit for a key or a token. Seeded environments derive them from the seed.
    pub fn secret(&self, len: usize) -> SecretBytes {
        let mut bytes = vec![0_u8; len];
        if self.seeded {
            self.with_rng(|r| r.fill(&mut bytes));
        } else {
            getrandom::fill(&mut bytes).expect("the operating system gives randomness");
        }
        SecretBytes(bytes)
    }

    fn with_rng<T>(&self, f: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        f(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("clock", &self.clock).field("seeded", &self.seeded).finish_non_exhaustive()
    }
}

fn push_base32(out: &mut String, value: u64, digits: u32) {
    for i in (0..digits).rev() {
        let digit = (value >> (5 * i)) & 31;
        out.push(char::from(ALPHABET[usize::try_from(digit).unwrap_or(0)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_sort_by_time_and_replay_from_the_seed() {
        let (env, clock) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 7);
        let first = env.id("j");
        clock.advance(Duration::from_millis(2));
        let second = env.id("j");
        assert!(first < second, "{first} {second}");
        assert_eq!(first.len(), 16);
        let (again, _) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 7);
        assert_eq!(again.id("j"), first);
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Env::system().secret(32)), "SecretBytes(32 bytes)");
    }
}
