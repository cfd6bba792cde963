//! Room on the disk, kept free so that a full disk is an error and not an end.
//!
//! Once a write of the engine has failed, what it has in memory may be ahead of the disk, and only a restart tells what counts. So writes
//! are refused before that, while there is still room for what the engine does on its own: journals, tables being merged. A refused write
//! has changed nothing, and when there is room again the next one goes through.

use std::path::{Path, PathBuf};

use tidemill_base::{ByteSize, Error, ErrorKind, Result};

/// What is kept free, on disks large enough.
const FLOOR: u64 = 64 << 20;
/// On smaller ones, this part of the disk.
const PART: u64 = 8;

/// The disk that a store is on.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
}

impl Room {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// `Exhausted` when writes must wait for room.
    pub(super) fn look(&self) -> Result<()> {
        self.of(0, 1)
    }

    /// `Exhausted` when so many bytes of contents must not be taken. Twice the floor stays free of them: contents alone never
    /// keep people from removing what they do not need.
    pub(super) fn look_for(&self, bytes: u64) -> Result<()> {
        self.of(bytes, 2)
    }

    fn of(&self, bytes: u64, floors: u64) -> Result<()> {
        let disk = match rustix::fs::statvfs(&self.path) {
            Ok(disk) => disk,
            // The write will say what is wrong.
            Err(e) => {
                tracing::debug!(error = %e, "cannot tell how much room is left");
                return Ok(());
            }
        };
        let (free, total) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
        let kept = floor(total).saturating_mul(floors);
        if free >= bytes.saturating_add(kept) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Exhausted,
            format!(
                "no space is left for this on the disk of {}: {} are free and {} are kept free; make room, and writes go on by themselves",
                self.path.display(),
                ByteSize(free),
                ByteSize(kept)
            ),
        ))
    }
}

fn floor(total: u64) -> u64 {
    FLOOR.min(total / PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_disks_keep_a_part_and_large_ones_no_more_than_the_floor() {
        assert_eq!(floor(160 << 20), 20 << 20);
        assert_eq!(floor(1 << 40), FLOOR);
    }

    #[test]
    fn what_cannot_fit_is_refused_by_name_and_what_fits_is_not() {
        let folder = std::env::temp_dir();
        let room = Room::new(&folder);
        let e = room.look_for(1 << 60).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Exhausted);
        assert!(e.message().contains(&folder.display().to_string()) && e.message().contains("make room"), "{e}");
        Room::new(Path::new("/no/such/folder")).look_for(1 << 60).unwrap();
    }
}
