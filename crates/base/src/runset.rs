//! A set of whole numbers kept as runs. Ten million numbers in one run cost sixteen bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A set of `u64`, below the largest, kept as disjoint, non-adjacent runs `(start, length)` in ascending order.
///
/// Inserting and removing a run costs O(log r + k), r being the number of runs and k the number of runs touched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct RunSet {
    // start -> end (exclusive)
    runs: BTreeMap<u64, u64>,
    len: u64,
}

impl RunSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { runs: BTreeMap::new(), len: 0 }
    }

    /// The set `start..start+len`.
    pub fn from_run(start: u64, len: u64) -> Self {
        let mut set = Self::new();
        set.insert_run(start, len);
        set
    }

    /// How many numbers it holds.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many runs it is kept as.
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Whether `n` is in it.
    pub fn contains(&self, n: u64) -> bool {
        self.runs.range(..=n).next_back().is_some_and(|(_, end)| n < *end)
    }

    /// Adds `start..start+len`. Returns how many numbers were not there before.
    pub fn insert_run(&mut self, start: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let end = start.saturating_add(len);
        if start == end {
            // The end of a run is a number too, so the largest one cannot be in a set.
            return 0;
        }
        let (mut new_start, mut new_end, mut swallowed) = (start, end, 0);
        if let Some((&s, &e)) = self.runs.range(..start).next_back()
            && e >= start
        {
            new_start = s;
        }
        let touched: Vec<u64> = self.runs.range(new_start..=end).map(|(s, _)| *s).collect();
        for s in touched {
            let e = self.runs.remove(&s).unwrap_or(s);
            swallowed += e - s;
            new_end = new_end.max(e);
        }
        self.runs.insert(new_start, new_end);
        let added = (new_end - new_start) - swallowed;
        self.len += added;
        added
    }

    /// Adds one number; whether it was new.
    pub fn insert(&mut self, n: u64) -> bool {
        self.insert_run(n, 1) == 1
    }

    /// Takes `start..start+len` out. Returns how many numbers were there.
    pub fn remove_run(&mut self, start: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let end = start.saturating_add(len);
        let first = self.runs.range(..start).next_back().filter(|(_, e)| **e > start).map_or(start, |(s, _)| *s);
        let touched: Vec<(u64, u64)> = self.runs.range(first..end).map(|(s, e)| (*s, *e)).collect();
        let mut removed = 0;
        for (s, e) in touched {
            self.runs.remove(&s);
            if s < start {
                self.runs.insert(s, start);
            }
            if e > end {
                self.runs.insert(end, e);
            }
            removed += e.min(end) - s.max(start);
        }
        self.len -= removed;
        removed
    }

    /// Adds all of `other`. Returns how many numbers were new.
    pub fn union_with(&mut self, other: &Self) -> u64 {
        other.runs().map(|(s, l)| self.insert_run(s, l)).sum()
    }

    /// Takes all of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        for (s, l) in other.runs() {
            self.remove_run(s, l);
        }
    }

    /// What it holds of `start..start+len`: runs `(start, length)`, ascending.
    pub fn within(&self, start: u64, len: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = start.saturating_add(len);
        let first = self.runs.range(..start).next_back().filter(|(_, e)| **e > start).map_or(start, |(s, _)| *s);
        self.runs.range(first..end).filter_map(move |(s, e)| {
            let (from, until) = ((*s).max(start), (*e).min(end));
            (from < until).then(|| (from, until - from))
        })
    }

    /// Takes at most `max` numbers out of the lowest run and returns that run. `None` when the set is empty.
    pub fn take_first(&mut self, max: u64) -> Option<(u64, u64)> {
        let (&s, &e) = self.runs.iter().next()?;
        let len = (e - s).min(max);
        if len == 0 {
            return None;
        }
        self.remove_run(s, len);
        Some((s, len))
    }

    /// The runs `(start, length)`, ascending.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(s, e)| (*s, e - s))
    }

    /// Every number, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(s, e)| *s..*e)
    }
}

impl From<Vec<(u64, u64)>> for RunSet {
    fn from(runs: Vec<(u64, u64)>) -> Self {
        let mut set = Self::new();
        for (s, l) in runs {
            set.insert_run(s, l);
        }
        set
    }
}

impl From<RunSet> for Vec<(u64, u64)> {
    fn from(set: RunSet) -> Self {
        set.runs().collect()
    }
}

impl FromIterator<u64> for RunSet {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut set = Self::new();
        for n in numbers {
            set.insert(n);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_plain_set_under_random_operations() {
        let mut rng = fastrand::Rng::with_seed(42);
        for _ in 0..200 {
            let (mut ours, mut model) = (RunSet::new(), BTreeSet::new());
            for _ in 0..60 {
                let (start, len) = (rng.u64(0..80), rng.u64(0..12));
                if rng.bool() {
                    let before = model.len();
                    model.extend(start..start + len);
                    assert_eq!(ours.insert_run(start, len), (model.len() - before) as u64);
                } else {
                    let before = model.len();
                    for n in start..start + len {
                        model.remove(&n);
                    }
                    assert_eq!(ours.remove_run(start, len), (before - model.len()) as u64);
                }
                assert!(ours.iter().eq(model.iter().copied()));
                assert_eq!(ours.len(), model.len() as u64);
                let within = ours.within(start, len).flat_map(|(s, l)| s..s + l);
                assert!(within.eq(model.range(start..start + len).copied()));
                let ends: Vec<_> = ours.runs().collect();
                assert!(ends.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "runs touch: {ends:?}");
            }
        }
    }

    #[test]
    fn a_run_that_begins_at_the_end_of_all_numbers_is_empty() {
        let mut set = RunSet::from_run(u64::MAX, 9);
        assert_eq!((set.len(), set.run_count()), (0, 0));
        assert_eq!(set.insert_run(u64::MAX - 1, 9), 1);
        assert_eq!(set.remove_run(u64::MAX - 3, 9), 1);
        assert_eq!(set.run_count(), 0);
    }

    #[test]
    fn ten_million_waiting_tasks_are_one_run() {
        let mut set = RunSet::from_run(0, 10_000_000);
        assert_eq!(set.take_first(500), Some((0, 500)));
        assert_eq!((set.len(), set.run_count()), (9_999_500, 1));
    }
}
