//! The settings of a node's store, with their defaults and limits.

use std::time::Duration;

/// The settings of the storage of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// A segment of the log that has this many bytes is followed by a new one; at most 16 GiB, as nothing of it is given
    /// back before. Default 64 MiB.
    pub segment_bytes: u64,
    /// A batch is cut when its records have this many bytes; one record may be larger. At most 1 GiB. Default 8 MiB.
    pub batch_bytes: usize,
    /// The largest record in bytes, which is refused beyond; it is read back as a whole. At least 4 MiB, so that the
    /// largest command fits, and below 2 GiB. Default 256 MiB.
    pub record_bytes_max: usize,
    /// When nothing was written for this long, the writer marks how far the log is durable; any time. Default 100 ms.
    pub mark_idle: Duration,
    /// Groups are asked to write themselves anew when the log is this many times larger than what of it is in use.
    /// At least 2. Default 4.
    pub log_garbage_ratio: u64,
    /// ... or when it has more segments than this and a third of it is not in use; any number. Default 64.
    pub segments_max: usize,
    /// How many groups are asked at a time; at least one. Default 256.
    pub rewrites_max: usize,
    /// How many bytes of a snapshot are compressed and read at a time; 64 bytes to 16 MiB. Default 256 KiB.
    pub snapshot_chunk_bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            batch_bytes: 8 << 20,
            record_bytes_max: 256 << 20,
            mark_idle: Duration::from_millis(100),
            log_garbage_ratio: 4,
            segments_max: 64,
            rewrites_max: 256,
            snapshot_chunk_bytes: 256 << 10,
        }
    }
}

/// The largest segment.
const SEGMENT_BYTES_MAX: u64 = 16 << 30;
/// The largest batch, and the largest limit of a record: one of each fits the length in a header.
const BATCH_BYTES_MAX: usize = 1 << 30;
const RECORD_BYTES_LIMIT_MAX: usize = (u32::MAX >> 1) as usize;
/// The smallest limit of a record.
const RECORD_BYTES_LIMIT_MIN: usize = 4 << 20;
/// The smallest chunk of a snapshot: each has a head of its own, and a place in the reader's memory.
const SNAPSHOT_CHUNK_BYTES_MIN: usize = 64;
/// The largest chunk of a snapshot: what a reader makes room for at most.
pub(super) const SNAPSHOT_CHUNK_BYTES_MAX: usize = 16 << 20;

impl StoreConfig {
    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        let ranges = [
            ("segment_bytes", self.segment_bytes, 1, SEGMENT_BYTES_MAX),
            ("batch_bytes", self.batch_bytes as u64, 1, BATCH_BYTES_MAX as u64),
            (
                "record_bytes_max",
                self.record_bytes_max as u64,
                RECORD_BYTES_LIMIT_MIN as u64,
                RECORD_BYTES_LIMIT_MAX as u64,
            ),
            ("log_garbage_ratio", self.log_garbage_ratio, 2, u64::MAX),
            ("rewrites_max", self.rewrites_max as u64, 1, u64::MAX),
            (
                "snapshot_chunk_bytes",
                self.snapshot_chunk_bytes as u64,
                SNAPSHOT_CHUNK_BYTES_MIN as u64,
                SNAPSHOT_CHUNK_BYTES_MAX as u64,
            ),
        ];
        for (name, value, least, most) in ranges {
            if value < least {
                return Err(format!("{name} {value} is below {least}"));
            }
            if value > most {
                return Err(format!("{name} {value} is over the limit of {most}"));
            }
        }
        Ok(())
    }
}
