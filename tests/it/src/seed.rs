//! Chance that can be had again: the seed is printed, and `TIDEMILL_IT_SEED` sets it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small generator of random numbers (xorshift64*), for the moments at which tests kill things.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// With the seed of the environment, or of this moment. Prints it, so that a failure names it.
    pub fn new(what: &str) -> Self {
        let given = std::env::var("TIDEMILL_IT_SEED").ok().and_then(|s| s.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_micros() as u64);
        let seed = given.unwrap_or(now);
        println!("{what}: TIDEMILL_IT_SEED={seed}");
        Self(seed.max(1))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n.max(1)
    }

    /// A span between the two, in milliseconds.
    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most.saturating_sub(least) + 1))
    }
}
