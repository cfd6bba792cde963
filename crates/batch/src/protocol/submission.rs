//! Tasks that somebody hands to an open stage: their payloads, and the tasks whose results they need.
//!
//! One submission holds many tasks as columns, so that a million of them are a few allocations on either side. It is kept as it came:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | `TMS1` |
//! | 4 | n, how many tasks |
//! | 4 | d, how many dependencies in all |
//! | 4 n | the length of each payload |
//! | 4 n, if d > 0 | how many dependencies each task has |
//! | 8 d | the tasks they name; with the highest bit set, counted from this submission's first task |
//! | | the payloads, one after the other |
//!
//! Integers are little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use tidemill_base::{Error, Result};

const MAGIC: &[u8; 4] = b"TMS1";
const HEAD: usize = 12;
/// Set in a dependency that is counted from the submission's own first task.
pub const OWN: u64 = 1 << 63;
/// The most tasks in one submission.
pub const MAX_SUBMISSION_TASKS: u32 = 1_000_000;
/// The most dependencies of one task.
pub const MAX_DEPENDENCIES: u32 = 10_000;

/// A submission, checked. Payloads are slices of the bytes it came in.
#[derive(Debug, Clone)]
pub struct Submission {
    bytes: Bytes,
    /// Where each payload begins, and where the last one ends.
    starts: Vec<usize>,
    /// Where each task's dependencies begin in `deps`, and where the last one's end. Empty: there are none.
    dep_starts: Vec<usize>,
    deps: Vec<u64>,
}

impl Submission {
    /// Reads one. `Invalid` says what does not fit, and where.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let bad = |what: String| Error::invalid(format!("the submission cannot be read: {what}"));
        let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        if bytes.get(..4) != Some(MAGIC.as_slice()) {
            return Err(bad("it does not begin with `TMS1`".to_owned()));
        }
        let (Some(count), Some(dep_total)) = (word(4), word(8)) else {
            return Err(bad(format!("it ends after {} bytes, within its head", bytes.len())));
        };
        if count == 0 || count > MAX_SUBMISSION_TASKS {
            return Err(bad(format!("it claims {count} tasks; 1 to {MAX_SUBMISSION_TASKS} fit into one")));
        }
        let columns = if dep_total > 0 { 2 } else { 1 } * 4 * count as usize + 8 * dep_total as usize;
        if bytes.len() < HEAD + columns {
            return Err(bad(format!("{} bytes are too few for {count} tasks with {dep_total} dependencies", bytes.len())));
        }
        let count = count as usize;
        let mut starts = Vec::with_capacity(count + 1);
        let mut at = HEAD + columns;
        starts.push(at);
        for len in bytes[HEAD..HEAD + 4 * count].chunks_exact(4) {
            at = at.saturating_add(u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize);
            starts.push(at);
        }
        if at != bytes.len() {
            return Err(bad(format!("its payloads end at byte {at}, and it has {}", bytes.len())));
        }
        let (dep_starts, deps) = if dep_total > 0 { dependencies(&bytes, count, dep_total)? } else { (Vec::new(), Vec::new()) };
        Ok(Self { bytes, starts, dep_starts, deps })
    }

    /// How many tasks, at least one.
    pub const fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Never: see [`Submission::len`].
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload of the task at this place.
    pub fn payload(&self, at: usize) -> Option<Bytes> {
        Some(self.bytes.slice(*self.starts.get(at)?..*self.starts.get(at + 1)?))
    }

    /// How long the payloads of these tasks are together.
    pub fn payload_bytes(&self, at: usize, count: usize) -> usize {
        let end = (at + count).min(self.len());
        self.starts.get(end).copied().unwrap_or(0).saturating_sub(self.starts.get(at).copied().unwrap_or(0))
    }

    /// Whether any task needs the result of another.
    pub const fn has_dependencies(&self) -> bool {
        !self.deps.is_empty()
    }

    /// The tasks whose results the task at this place needs, when the submission's own first task is number `first`.
    pub fn dependencies(&self, at: usize, first: u64) -> impl Iterator<Item = u64> + '_ {
        let run = match (self.dep_starts.get(at), self.dep_starts.get(at + 1)) {
            (Some(&from), Some(&until)) => from..until,
            _ => 0..0,
        };
        self.deps[run].iter().map(move |d| if d & OWN == 0 { *d } else { first + (d & !OWN) })
    }

    /// The tasks that need results, and whose, when the submission's own first task is number `first`.
    pub fn needs(&self, first: u64) -> Vec<(u64, Vec<u64>)> {
        if !self.has_dependencies() {
            return Vec::new();
        }
        let of = |at: usize| (first + at as u64, self.dependencies(at, first).collect::<Vec<_>>());
        (0..self.len()).map(of).filter(|(_, needs)| !needs.is_empty()).collect()
    }

    /// Checks that every task needs only tasks before it. `Invalid` names the first that does not.
    pub fn check_order(&self, first: u64) -> Result<()> {
        for at in 0..self.len() {
            let own = first + at as u64;
            if let Some(later) = self.dependencies(at, first).find(|d| *d >= own) {
                return Err(Error::invalid(format!(
                    "task {own} needs the result of task {later}, which does not come before it; submit what others need first"
                )));
            }
        }
        Ok(())
    }

    /// The bytes it was read from.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// A submission of some of its tasks, without their dependencies: what a worker needs of it.
    pub fn part(&self, at: usize, count: usize) -> Bytes {
        let end = (at + count).min(self.len());
        write((at..end).filter_map(|i| self.payload(i)))
    }
}

fn dependencies(bytes: &Bytes, count: usize, total: u32) -> Result<(Vec<usize>, Vec<u64>)> {
    let bad = |what: String| Error::invalid(format!("the submission cannot be read: {what}"));
    let (mut starts, mut sum) = (Vec::with_capacity(count + 1), 0_usize);
    starts.push(0);
    let column = HEAD + 4 * count;
    for (at, n) in bytes[column..column + 4 * count].chunks_exact(4).enumerate() {
        let n = u32::from_le_bytes([n[0], n[1], n[2], n[3]]);
        if n > MAX_DEPENDENCIES {
            return Err(bad(format!(
                "its task {at} has {n} dependencies; at most {MAX_DEPENDENCIES} are allowed, so gather them in steps"
            )));
        }
        sum += n as usize;
        starts.push(sum);
    }
    if sum != total as usize {
        return Err(bad(format!("its tasks have {sum} dependencies together, and it claims {total}")));
    }
    let column = column + 4 * count;
    let deps = bytes[column..column + 8 * sum].chunks_exact(8);
    Ok((starts, deps.map(|d| u64::from_le_bytes([d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])).collect()))
}

/// Writes a submission of tasks without dependencies.
pub fn write(payloads: impl Iterator<Item = Bytes>) -> Bytes {
    let payloads: Vec<Bytes> = payloads.collect();
    let total: usize = payloads.iter().map(Bytes::len).sum();
    let mut out = BytesMut::with_capacity(HEAD + 4 * payloads.len() + total);
    out.put_slice(MAGIC);
    out.put_u32_le(u32::try_from(payloads.len()).unwrap_or(u32::MAX));
    out.put_u32_le(0);
    payloads.iter().for_each(|p| out.put_u32_le(u32::try_from(p.len()).unwrap_or(u32::MAX)));
    payloads.iter().for_each(|p| out.put_slice(p));
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_deps(payloads: &[&[u8]], deps: &[&[u64]]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u32_le(payloads.len() as u32);
        out.put_u32_le(deps.iter().map(|d| d.len() as u32).sum());
        payloads.iter().for_each(|p| out.put_u32_le(p.len() as u32));
        deps.iter().for_each(|d| out.put_u32_le(d.len() as u32));
        deps.iter().flat_map(|d| d.iter()).for_each(|d| out.put_u64_le(*d));
        payloads.iter().for_each(|p| out.put_slice(p));
        out.freeze()
    }

    #[test]
    fn payloads_and_dependencies_are_read_where_they_are() {
        let bytes = with_deps(&[b"one", b"", b"three"], &[&[4], &[], &[OWN, 7]]);
        let read = Submission::parse(bytes).unwrap();
        assert_eq!((read.len(), read.payload_bytes(1, 2)), (3, 5));
        assert_eq!((0..3).map(|i| read.payload(i).unwrap()).collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert_eq!(read.payload(3), None);
        assert_eq!(read.dependencies(0, 10).collect::<Vec<_>>(), [4]);
        assert_eq!(read.dependencies(2, 10).collect::<Vec<_>>(), [10, 7]);
        read.check_order(10).unwrap();
        let part = Submission::parse(read.part(1, 9)).unwrap();
        assert_eq!((part.len(), part.payload(1).unwrap(), part.has_dependencies()), (2, Bytes::from_static(b"three"), false));
    }

    #[test]
    fn what_does_not_come_before_is_named() {
        let own = Submission::parse(with_deps(&[b"a", b"b"], &[&[], &[OWN | 1]])).unwrap();
        let error = own.check_order(5).unwrap_err().to_string();
        assert!(error.contains("task 6 needs the result of task 6"), "{error}");
    }

    #[test]
    fn damage_is_refused_and_never_panics() {
        let good = with_deps(&[b"one", b"two"], &[&[0], &[OWN]]);
        for (at, byte) in [(0, b'X'), (4, 0), (4, 9), (8, 9), (12, 9), (20, 9)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert!(Submission::parse(bad.into()).is_err(), "byte {at}");
        }
        for len in 0..good.len() {
            assert!(Submission::parse(good.slice(..len)).is_err(), "{len} bytes");
        }
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            if let Ok(read) = Submission::parse(bytes.into()) {
                drop(read.check_order(u64::from(rng.u32(..))));
                assert!((0..read.len()).all(|i| read.payload(i).is_some()));
            }
        }
    }
}
