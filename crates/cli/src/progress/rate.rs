//! How fast something goes, over the last few seconds.

use std::collections::VecDeque;
use std::time::Duration;

/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(10);

/// Takes the count at moments, gives the rate.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// The count was `n` at `at`, since the beginning.
    pub(crate) fn note(&mut self, at: Duration, n: u64) {
        self.samples.push_back((at, n));
        // One sample older than the window stays, so that the span is at least the window.
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(t, _)| at.saturating_sub(*t) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Per second; zero while there is nothing to judge by.
    pub(crate) fn per_second(&self) -> f64 {
        let (Some((t0, n0)), Some((t1, n1))) = (self.samples.front(), self.samples.back()) else { return 0.0 };
        let span = t1.saturating_sub(*t0).as_secs_f64();
        if span <= 0.0 { 0.0 } else { n1.saturating_sub(*n0) as f64 / span }
    }

    /// Seconds until `remaining` more are done, at this rate.
    pub(crate) fn seconds_for(&self, remaining: u64) -> Option<f64> {
        let rate = self.per_second();
        (rate > 0.0).then(|| remaining as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), 0.0);
        for second in 0..20 {
            rate.note(Duration::from_secs(second), second * 100);
        }
        assert_eq!(rate.per_second(), 100.0);
        for second in 20..40 {
            rate.note(Duration::from_secs(second), 1900 + (second - 19) * 10);
        }
        assert_eq!(rate.per_second(), 10.0);
        assert_eq!(rate.seconds_for(50), Some(5.0));
    }

    #[test]
    fn a_standstill_has_no_end() {
        let mut rate = Rate::default();
        rate.note(Duration::ZERO, 5);
        rate.note(Duration::from_secs(3), 5);
        assert_eq!(rate.seconds_for(1), None);
    }
}
