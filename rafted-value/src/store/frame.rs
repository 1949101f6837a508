//! The header of a batch, by which its bytes are known from whatever else a disk may hold.
//!
//! Both checksums start from a salt of the log that no client knows, so that a payload cannot pretend to be a batch.

/// How many bytes a header has, in every version.
pub(super) const HEADER_BYTES: usize = 36;
/// The newest version of batches that is known.
pub(super) const BATCH_VERSION: u32 = 1;
/// `RVLB`, little-endian.
const MAGIC: u32 = u32::from_le_bytes(*b"RVLB");

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) payload_bytes: u32,
    /// Batches are numbered from 1 on, without a gap.
    pub(super) sequence: u64,
    /// The newest batch that was durable when this one was written; 0 for none.
    pub(super) durable_to: u64,
    pub(super) payload_crc: u32,
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoHeader {
    /// Something else, or damaged.
    Bad(&'static str),
    /// A whole header of a newer version.
    Newer(u32),
}

impl Header {
    pub(super) fn write(&self, salt: u32) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&BATCH_VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        out[20..28].copy_from_slice(&self.durable_to.to_le_bytes());
        out[28..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = checksum(salt, &out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`.
    pub(super) fn read(salt: u32, bytes: &[u8]) -> Result<Self, NoHeader> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(NoHeader::Bad("the header is cut off"));
        };
        if header[0..4] != MAGIC.to_le_bytes() {
            return Err(NoHeader::Bad("no batch starts here"));
        }
        if u32_at(header, 32) != checksum(salt, &header[..32]) {
            return Err(NoHeader::Bad("the header's checksum is wrong"));
        }
        let version = u32_at(header, 4);
        if version > BATCH_VERSION {
            return Err(NoHeader::Newer(version));
        }
        Ok(Self {
            payload_bytes: u32_at(header, 8),
            sequence: u64_at(header, 12),
            durable_to: u64_at(header, 20),
            payload_crc: u32_at(header, 28),
        })
    }

    /// The first whole header in `bytes`, and where it starts.
    pub(super) fn find(salt: u32, bytes: &[u8]) -> Option<(usize, Self)> {
        let magic = MAGIC.to_le_bytes();
        let starts = bytes.windows(magic.len()).enumerate().filter(|(_, window)| *window == magic);
        starts.map(|(at, _)| at).find_map(|at| Some((at, Self::read(salt, &bytes[at..]).ok()?)))
    }
}

/// CRC-32C of `bytes`, begun at `salt`.
pub(super) fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(salt, bytes)
}

/// The number at `at`.
///
/// # Panics
///
/// Panics when `bytes` ends before it does.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the number is within the bytes"))
}

/// The number at `at`.
///
/// # Panics
///
/// Panics when `bytes` ends before it does.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the number is within the bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { payload_bytes: 3, sequence: 0x0102, durable_to: 0x0101, payload_crc: 9 };

    #[test]
    fn a_header_has_these_golden_bytes() {
        let golden = [
            b'R', b'V', b'L', b'B', 1, 0, 0, 0, // magic, version
            3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, // payload bytes, sequence
            1, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, // durable to, checksum of the payload
            93, 213, 142, 125, // checksum of the header
        ];
        let written = HEADER.write(7);
        assert_eq!(written, golden);
        assert_eq!(Header::read(7, &written), Ok(HEADER));
        assert!(Header::read(8, &written).is_err(), "the salt of another log");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.write(7);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::read(7, &bytes), Err(NoHeader::Bad(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = HEADER.write(7);
        bytes[4] = 9;
        assert!(matches!(Header::read(7, &bytes), Err(NoHeader::Bad(_))));
        let crc = checksum(7, &bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::read(7, &bytes), Err(NoHeader::Newer(9)));
    }

    #[test]
    fn a_header_is_found_behind_garbage_and_false_starts() {
        let mut bytes = b"RVLBRVLB xx".to_vec();
        bytes.extend(HEADER.write(7));
        assert_eq!(Header::find(7, &bytes), Some((11, HEADER)));
        assert_eq!(Header::find(7, &bytes[..bytes.len() - 1]), None);
    }
}
