//! Unpacking what was packed with zstd.

use std::io::{Error, Result};

/// Unpacks one frame of at most `max` bytes. What it unfolds to stands at its beginning, so that memory is taken for just that much,
/// and a frame that claims more is refused before any is taken.
pub(crate) fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>> {
    let claimed = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let len = claimed.and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= max);
    let len = len.ok_or_else(|| Error::other(format!("this is no frame of at most {max} bytes")))?;
    zstd::bulk::decompress(packed, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_unpacked_within_its_limit_only() {
        let packed = zstd::bulk::compress(&[7; 1000], 1).unwrap();
        assert_eq!(unpack(&packed, 1000).unwrap(), [7; 1000]);
        assert!(unpack(&packed, 999).is_err());
        assert!(unpack(&packed[..packed.len() - 1], 1000).is_err());
        assert!(unpack(b"", 1000).is_err() && unpack(b"no frame", 1000).is_err());
        assert_eq!(unpack(&zstd::bulk::compress(b"", 1).unwrap(), 0).unwrap(), b"");
    }
}
