//! The mark: how far the log is surely durable, written when there is time for it.
//!
//! Two slots are written in turn, a sector apart, so that a torn write leaves the one before. Each tells the newest
//! durable batch and the first segment that is still needed: what lies below either must be there.

use super::StoreError;
use super::frame::{checksum, u32_at, u64_at};
use crate::disk::{Disk, DiskFile};

/// Where it is.
pub(super) const MARK_FILE: &str = "log/mark";
const SLOT_BYTES: usize = 64;
/// The second slot lies in another sector, on disks of 4 KiB sectors too.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const MARK_VERSION: u32 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"RVMK");

/// What is surely there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mark {
    /// The newest durable batch; 0 for none.
    pub(super) sequence: u64,
    /// The segment and offset at which it ends.
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// The oldest segment that is needed, and the number of its first batch.
    pub(super) first_segment: u64,
    pub(super) first_sequence: u64,
}

/// The mark's file, open.
pub(super) struct MarkFile {
    file: Box<dyn DiskFile>,
    /// The number of the newest slot.
    counter: u64,
    newest: Mark,
}

impl Mark {
    fn write(&self, salt: u32, counter: u64) -> [u8; SLOT_BYTES] {
        let mut out = [0; SLOT_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&MARK_VERSION.to_le_bytes());
        let numbers =
            [counter, self.sequence, self.segment, self.offset, self.first_segment, self.first_sequence];
        for (number, to) in numbers.iter().zip(out[8..56].chunks_exact_mut(8)) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let crc = checksum(salt, &out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The mark of a slot and its number; `None` where there is no whole one.
    fn read(salt: u32, bytes: &[u8]) -> Result<Option<(u64, Self)>, u32> {
        let Some(slot) = bytes.first_chunk::<SLOT_BYTES>() else { return Ok(None) };
        if slot[0..4] != MAGIC.to_le_bytes() || u32_at(slot, 60) != checksum(salt, &slot[..60]) {
            return Ok(None);
        }
        match u32_at(slot, 4) {
            version if version > MARK_VERSION => Err(version),
            _ => Ok(Some((
                u64_at(slot, 8),
                Self {
                    sequence: u64_at(slot, 16),
                    segment: u64_at(slot, 24),
                    offset: u64_at(slot, 32),
                    first_segment: u64_at(slot, 40),
                    first_sequence: u64_at(slot, 48),
                },
            ))),
        }
    }
}

/// The newest whole mark and its number; `None` where there is none.
pub(super) fn read_mark(disk: &dyn Disk, salt: u32) -> Result<Option<(u64, Mark)>, StoreError> {
    let mut slots = Vec::new();
    for offset in SLOT_OFFSETS {
        let bytes = disk.read_at(MARK_FILE, offset, SLOT_BYTES)?;
        let newer = |found| StoreError::NewerFormat { file: MARK_FILE.into(), found, known: MARK_VERSION };
        slots.extend(Mark::read(salt, &bytes).map_err(newer)?);
    }
    Ok(slots.into_iter().max_by_key(|(number, _)| *number))
}

impl MarkFile {
    /// The file whose newest slot is `newest`, as [`read_mark`] gave it.
    pub(super) fn open(disk: &dyn Disk, newest: (u64, Mark)) -> Result<Self, StoreError> {
        Ok(Self { file: disk.open(MARK_FILE)?, counter: newest.0, newest: newest.1 })
    }

    /// Makes the file of a log that is new.
    pub(super) async fn create(disk: &dyn Disk, salt: u32, mark: Mark) -> Result<Self, StoreError> {
        let mut new = Self { file: disk.open(MARK_FILE)?, counter: 0, newest: mark };
        new.file.truncate(0)?;
        new.write(salt, mark).await?;
        disk.sync_folder("log").await?;
        Ok(new)
    }

    /// What it says.
    pub(super) fn newest(&self) -> &Mark {
        &self.newest
    }

    /// Makes durable what was only read: an earlier life may have ended between the write and the sync of the slot. It
    /// is written again into its own slot, so that the other one stays whole meanwhile.
    pub(super) async fn confirm(&mut self, salt: u32) -> Result<(), StoreError> {
        let slot = SLOT_OFFSETS[(self.counter % 2) as usize];
        self.file.write_at(slot, &self.newest.write(salt, self.counter))?;
        Ok(self.file.sync().await?)
    }

    /// Writes `mark` and makes it durable.
    pub(super) async fn write(&mut self, salt: u32, mark: Mark) -> Result<(), StoreError> {
        self.counter += 1;
        let slot = SLOT_OFFSETS[(self.counter % 2) as usize];
        self.file.write_at(slot, &mark.write(salt, self.counter))?;
        self.file.sync().await?;
        self.newest = mark;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { sequence: 9, segment: 3, offset: 0x0203, first_segment: 2, first_sequence: 5 };

    #[test]
    fn a_slot_has_these_golden_bytes() {
        let mut golden = [0; SLOT_BYTES];
        golden[..8].copy_from_slice(b"RVMK\x01\0\0\0");
        for (at, byte) in [(8, 4), (16, 9), (24, 3), (32, 3), (33, 2), (40, 2), (48, 5)] {
            golden[at] = byte;
        }
        let written = MARK.write(7, 4);
        golden[60..].copy_from_slice(&[92, 4, 191, 240]);
        assert_eq!(written, golden);
        assert_eq!(Mark::read(7, &written), Ok(Some((4, MARK))));
        assert_eq!(Mark::read(8, &written), Ok(None), "the salt of another log");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..SLOT_BYTES * 8 {
            let mut bytes = MARK.write(7, 4);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::read(7, &bytes), Ok(None), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = MARK.write(7, 4);
        bytes[4] = 2;
        let crc = checksum(7, &bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Mark::read(7, &bytes), Err(2));
    }
}
