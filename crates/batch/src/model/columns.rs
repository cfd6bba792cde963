//! Per-task statistics as columns: a report carries them, segments keep them, SQL reads them.

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

use crate::unpack::unpack;

/// One settled attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskStat {
    /// Which task.
    pub task: u64,
    /// Which try, from 1.
    pub attempt: u32,
    /// 0 for success, else [`super::FailureClass::code`].
    pub class: u8,
    /// Exit code; minus the signal's number when a signal ended it.
    pub exit: i32,
    /// When it was started, microseconds since the epoch.
    pub started_us: i64,
    /// From release by the manager to its start on a worker, microseconds.
    pub wait_us: u64,
    /// Fetching its input, microseconds.
    pub stage_in_us: u64,
    /// Running, microseconds of wall time.
    pub run_us: u64,
    /// Storing its output, microseconds.
    pub stage_out_us: u64,
    /// User and system CPU time of the task and its descendants, microseconds.
    pub cpu_us: u64,
    /// Largest resident set, bytes.
    pub peak_memory: u64,
    /// Bytes of input fetched.
    pub bytes_in: u64,
    /// Bytes of output stored.
    pub bytes_out: u64,
}

macro_rules! columns {
    ($($name:ident: $t:ty),* $(,)?) => {
        /// Many settled attempts, a vector for each of [`TaskStat`]'s fields, all of one length.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        pub struct TaskColumns { $(
            /// See the field of the same name in [`TaskStat`].
            pub $name: Vec<$t>,
        )* }

        impl TaskColumns {
            /// Adds a row.
            pub fn push(&mut self, stat: TaskStat) { $( self.$name.push(stat.$name); )* }

            /// Row `at`, if there are so many.
            pub fn get(&self, at: usize) -> Option<TaskStat> {
                Some(TaskStat { $( $name: *self.$name.get(at)?, )* })
            }

            /// Adds all rows of `other`.
            pub fn append(&mut self, mut other: Self) { $( self.$name.append(&mut other.$name); )* }

            fn is_even(&self) -> bool { [$( self.$name.len(), )*].windows(2).all(|w| w[0] == w[1]) }
        }
    };
}

columns! {
    task: u64,
    attempt: u32,
    class: u8,
    exit: i32,
    started_us: i64,
    wait_us: u64,
    stage_in_us: u64,
    run_us: u64,
    stage_out_us: u64,
    cpu_us: u64,
    peak_memory: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// A report's columns are never longer than this when unpacked; a longer claim is refused before memory is given to it.
const MAX_UNPACKED_BYTES: usize = 64 << 20;

impl TaskColumns {
    /// How many rows.
    pub const fn len(&self) -> usize {
        self.task.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.task.is_empty()
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = TaskStat> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// Packs them: times as differences from the row before, then variable-length integers, then zstd.
    pub fn pack(&self) -> Result<Vec<u8>> {
        let mut plain = self.clone();
        for i in (1..plain.len()).rev() {
            plain.started_us[i] = plain.started_us[i].wrapping_sub(plain.started_us[i - 1]);
            plain.task[i] = plain.task[i].wrapping_sub(plain.task[i - 1]);
        }
        let bytes = postcard::to_stdvec(&plain).map_err(|e| Error::internal("pack task columns").with_source(e))?;
        zstd::bulk::compress(&bytes, 1).map_err(|e| Error::internal("pack task columns").with_source(e))
    }

    /// The inverse of [`TaskColumns::pack`]; `Corrupt` for anything else.
    pub fn unpack(bytes: &[u8]) -> Result<Self> {
        let corrupt = || Error::corrupt("task columns do not unpack");
        let plain = unpack(bytes, MAX_UNPACKED_BYTES).map_err(|e| corrupt().with_source(e))?;
        let mut columns: Self = postcard::from_bytes(&plain).map_err(|e| corrupt().with_source(e))?;
        if !columns.is_even() {
            return Err(corrupt());
        }
        for i in 1..columns.len() {
            columns.started_us[i] = columns.started_us[i].wrapping_add(columns.started_us[i - 1]);
            columns.task[i] = columns.task[i].wrapping_add(columns.task[i - 1]);
        }
        Ok(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_and_unpack_are_inverse_and_small() {
        let mut columns = TaskColumns::default();
        for i in 0..5000 {
            columns.push(TaskStat {
                task: i,
                attempt: 1,
                started_us: 1_700_000_000_000_000 + 10 * i.cast_signed(),
                run_us: 300 + i % 7,
                ..TaskStat::default()
            });
        }
        let packed = columns.pack().unwrap();
        assert!(packed.len() < 5000 * 8, "{} bytes", packed.len());
        assert_eq!(TaskColumns::unpack(&packed).unwrap(), columns);
    }

    #[test]
    fn garbage_is_corrupt_and_does_not_panic() {
        let mut rng = fastrand::Rng::with_seed(3);
        let good = {
            let mut c = TaskColumns::default();
            c.push(TaskStat::default());
            c.pack().unwrap()
        };
        for _ in 0..2000 {
            let mut bytes = good.clone();
            let at = rng.usize(..bytes.len());
            bytes[at] ^= rng.u8(1..);
            bytes.truncate(rng.usize(..=bytes.len()));
            if let Ok(c) = TaskColumns::unpack(&bytes) {
                assert!(c.is_even());
            }
        }
    }
}
