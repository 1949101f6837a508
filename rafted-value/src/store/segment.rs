//! The files that a log is cut into: their names, and reading them with bounded memory.

use super::StoreError;
use super::frame::HEADER_BYTES;
use crate::disk::Disk;

/// The folder of the log.
pub(super) const LOG_FOLDER: &str = "log";
const ENDING: &str = ".seg";
/// How much is read at a time, unless a batch is larger.
const WINDOW_BYTES: usize = 1 << 20;

/// The file of a segment.
pub(super) fn segment_file(segment: u64) -> String {
    format!("{LOG_FOLDER}/{segment:016x}{ENDING}")
}

/// The segment that a file of the log's folder is; `None` for a stranger.
pub(super) fn segment_of(name: &str) -> Option<u64> {
    let segment = u64::from_str_radix(name.strip_suffix(ENDING)?, 16).ok()?;
    // Only the one spelling: two names are never one segment.
    (segment_file(segment).strip_prefix(LOG_FOLDER)?.strip_prefix('/')? == name).then_some(segment)
}

/// A segment that is read from its start on.
pub(super) struct SegmentReader<'a> {
    disk: &'a dyn Disk,
    pub(super) file: String,
    /// The file's length.
    pub(super) bytes: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> SegmentReader<'a> {
    pub(super) fn new(disk: &'a dyn Disk, segment: u64, bytes: u64) -> Self {
        Self { disk, file: segment_file(segment), bytes, window: Vec::new(), window_start: 0 }
    }

    /// Up to `length` bytes at `offset`; fewer only where the file ends.
    pub(super) fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], StoreError> {
        let length = self.bytes.saturating_sub(offset).min(length as u64) as usize;
        let within = offset.checked_sub(self.window_start).map(|start| start as usize);
        let held = within.is_some_and(|start| start.saturating_add(length) <= self.window.len());
        if !held {
            self.window = self.disk.read_at(&self.file, offset, length.max(WINDOW_BYTES))?;
            self.window_start = offset;
        }
        let start = (offset - self.window_start) as usize;
        // The file may be shorter than it was when it was listed.
        let end = (start + length).min(self.window.len());
        Ok(&self.window[start..end])
    }

    /// The first thing from `offset` on that `find` finds in the rest of the file, a window at a time; `find` sees
    /// every header whole at least once.
    pub(super) fn search<T>(
        &mut self,
        mut offset: u64,
        find: impl Fn(&[u8]) -> Option<(usize, T)>,
    ) -> Result<Option<(u64, T)>, StoreError> {
        while offset < self.bytes {
            let window = self.read(offset, WINDOW_BYTES)?;
            if let Some((at, found)) = find(window) {
                return Ok(Some((offset + at as u64, found)));
            }
            if window.len() < WINDOW_BYTES {
                break;
            }
            offset += (WINDOW_BYTES - HEADER_BYTES) as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_one_name_and_strangers_have_none() {
        assert_eq!(segment_file(0x1f), "log/000000000000001f.seg");
        assert_eq!(segment_of("000000000000001f.seg"), Some(0x1f));
        for stranger in
            ["1f.seg", "000000000000001F.seg", "000000000000001f.seg~", "+00000000000001f.seg", "mark"]
        {
            assert_eq!(segment_of(stranger), None, "{stranger}");
        }
    }
}
