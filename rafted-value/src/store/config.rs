//! The settings of a node's store, with their defaults and limits.

use std::time::Duration;

/// The settings of the storage of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// A segment of the log that has this many bytes is followed by a new one. Default 64 MiB.
    pub segment_bytes: u64,
    /// A batch is cut when its records have this many bytes; one record may be larger. Default 8 MiB.
    pub batch_bytes: usize,
    /// The largest record in bytes, which is refused beyond; it is read back as a whole. Default 256 MiB.
    pub record_bytes_max: usize,
    /// When nothing was written for this long, the writer marks how far the log is durable. Default 100 ms.
    pub mark_idle: Duration,
    /// Groups are asked to write themselves anew when the log is this many times larger than what of it is in use.
    /// Default 4.
    pub log_garbage_ratio: u64,
    /// ... or when it has more segments than this and a third of it is not in use. Default 64.
    pub segments_max: usize,
    /// How many groups are asked at a time. Default 256.
    pub rewrites_max: usize,
    /// How many bytes of a snapshot are compressed and read at a time. Default 256 KiB, at most 16 MiB.
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

/// The largest chunk of a snapshot: what a reader makes room for at most.
pub(super) const SNAPSHOT_CHUNK_BYTES_MAX: usize = 16 << 20;

impl StoreConfig {
    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        let not_zero = [
            ("segment_bytes", self.segment_bytes),
            ("batch_bytes", self.batch_bytes as u64),
            ("rewrites_max", self.rewrites_max as u64),
            ("snapshot_chunk_bytes", self.snapshot_chunk_bytes as u64),
        ];
        if let Some((name, _)) = not_zero.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0"));
        }
        if self.record_bytes_max > (u32::MAX >> 1) as usize {
            return Err(format!("record_bytes_max {} is over the limit of 2 GiB", self.record_bytes_max));
        }
        if self.batch_bytes > (u32::MAX >> 1) as usize {
            return Err(format!("batch_bytes {} is over the limit of 2 GiB", self.batch_bytes));
        }
        if self.log_garbage_ratio < 2 {
            return Err(format!("log_garbage_ratio {} is below 2", self.log_garbage_ratio));
        }
        if self.snapshot_chunk_bytes > SNAPSHOT_CHUNK_BYTES_MAX {
            let asked = self.snapshot_chunk_bytes;
            return Err(format!(
                "snapshot_chunk_bytes {asked} is over the limit of {SNAPSHOT_CHUNK_BYTES_MAX}"
            ));
        }
        Ok(())
    }
}
