//! How often and how far apart something is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Env, HumanDuration};

/// Exponential backoff with jitter. The n-th pause (n from 1) is drawn from the upper half of `base * 2^(n-1)`, capped at `cap`;
/// see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// How many tries in all, the first one included. At least 1.
    pub attempts: u32,
    /// The first pause.
    pub base: HumanDuration,
    /// No pause is longer.
    pub cap: HumanDuration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, base: HumanDuration(Duration::from_millis(100)), cap: HumanDuration(Duration::from_secs(20)) }
    }
}

impl RetryPolicy {
    /// Whether a failure of try number `attempt` (from 1) may be followed by another.
    pub const fn allows_another(&self, attempt: u32) -> bool {
        attempt < self.attempts
    }

    /// The pause after try number `attempt` (from 1) failed.
    pub fn delay(&self, attempt: u32, env: &Env) -> Duration {
        let full = self.ceiling(attempt);
        full / 2 + full.mul_f64(env.random_unit() / 2.0)
    }

    /// The longest pause that [`RetryPolicy::delay`] may draw.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.base.0.saturating_mul(1 << doublings).min(self.cap.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn pauses_grow_to_the_cap_and_stay_in_the_upper_half() {
        let (env, _) = Env::manual(Timestamp::ZERO, 1);
        let policy = RetryPolicy::default();
        for attempt in 1..40 {
            let (d, top) = (policy.delay(attempt, &env), policy.ceiling(attempt));
            assert!(d >= top / 2 && d <= top, "{attempt}: {d:?} of {top:?}");
        }
        assert_eq!(policy.ceiling(39), policy.cap.0);
        assert!(policy.allows_another(4) && !policy.allows_another(5));
    }
}
