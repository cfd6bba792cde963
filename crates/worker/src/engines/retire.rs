//! Pools that are of no more use: those of an older version of what another pool has, and those that nobody has wanted for long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engines;

/// A pool is kept for so long after a session has used it although another pool has other versions of its packages: sessions of both may
/// be open.
const OUTDATED: Duration = Duration::from_secs(30);
/// And any pool for so long.
const UNUSED: Duration = Duration::from_secs(15 * 60);

/// A pool, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Use<'a> {
    /// What it is but for versions.
    line: &'a str,
    /// When a session last used it, microseconds since the epoch.
    used: i64,
    /// It has tasks.
    busy: bool,
}

impl Engines {
    /// Ends the engines of pools that are of no more use.
    pub(super) fn retire(&self) {
        let now = self.env.now().micros();
        let mut pools = self.pools();
        let uses: Vec<Use<'_>> = pools
            .iter()
            .map(|(_, warm)| Use { line: &warm.line, used: warm.used.load(Ordering::Relaxed), busy: !warm.routes.is_empty() })
            .collect();
        let mut keep = uses.iter().map(|one| !is_of_no_use(*one, &uses, now)).collect::<Vec<_>>().into_iter();
        pools.retain(|(key, _)| {
            let keep = keep.next().unwrap_or(true);
            if !keep {
                tracing::info!(engine = key.lines().next().unwrap_or_default(), "engines that nobody needs any more are ended");
            }
            keep
        });
    }
}

fn is_of_no_use(one: Use<'_>, all: &[Use<'_>], now: i64) -> bool {
    let idle = Duration::from_micros(u64::try_from(now - one.used).unwrap_or(0));
    let outdated = all.iter().any(|other| other.line == one.line && other.used > one.used);
    !one.busy && (idle >= UNUSED || outdated && idle >= OUTDATED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_version_ends_when_it_is_not_used_and_a_pool_of_its_own_kind_later() {
        let use_of = |line, seconds: i64, busy| Use { line, used: seconds * 1_000_000, busy };
        let retired = |all: &[Use<'_>], seconds: i64| -> Vec<usize> {
            (0..all.len()).filter(|i| is_of_no_use(all[*i], all, seconds * 1_000_000)).collect()
        };
        let two = [use_of("python", 100, false), use_of("python", 120, false), use_of("pricing", 90, false)];
        assert_eq!(retired(&two, 129), [0_usize; 0]);
        assert_eq!(retired(&two, 131), [0], "the older version");
        assert_eq!(retired(&[use_of("python", 100, true), two[1]], 131), [0_usize; 0], "which has tasks");
        assert_eq!(retired(&two, 120 + 16 * 60), [0, 1, 2]);
    }
}
