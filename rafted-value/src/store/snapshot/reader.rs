//! Reads a snapshot chunk by chunk, each checked before it is given out.

use std::sync::Arc;

use super::super::StoreError;
use super::super::frame::checksum;
use super::folder::{SnapshotFile, file_of};
use super::{BODY_BYTES_MAX, CHUNK_HEAD_BYTES, ChunkHead, FIXED_BYTES, SnapshotHead};
use crate::disk::Disk;

/// A snapshot file, open to be read.
pub(crate) struct SnapshotReader {
    disk: Arc<dyn Disk>,
    file: String,
    head: SnapshotHead,
    /// Where each chunk starts in the file.
    chunks: Vec<u64>,
    /// The chunk that was read last in pieces, and its position: pieces may be smaller than chunks.
    last: Option<(u64, Vec<u8>)>,
}

impl SnapshotReader {
    /// Opens the file and looks at its head and where its chunks are, but not into them.
    pub(super) fn open(disk: Arc<dyn Disk>, name: SnapshotFile) -> Result<Self, StoreError> {
        let file = file_of(name);
        let start = disk.read_at(&file, 0, FIXED_BYTES + BODY_BYTES_MAX)?;
        let (head, head_bytes) = SnapshotHead::decode(&file, &start)?;
        if (head.group, head.member, head.meta.index) != (name.group, name.member, name.index) {
            let found =
                file_of(SnapshotFile { group: head.group, member: head.member, index: head.meta.index });
            return Err(StoreError::corrupt(&file, 0, format!("it says that it is {found}")));
        }
        let mut reader = Self { disk, file, head, chunks: Vec::new(), last: None };
        reader.find_chunks(head_bytes)?;
        Ok(reader)
    }

    fn find_chunks(&mut self, head_bytes: u64) -> Result<(), StoreError> {
        let end = head_bytes.saturating_add(self.head.stored_bytes);
        let (mut offset, mut bytes) = (head_bytes, 0_u64);
        while offset < end {
            let chunk = self.chunk_head(offset)?;
            let expected = u64::from(self.head.chunk_bytes).min(self.head.meta.bytes.saturating_sub(bytes));
            if u64::from(chunk.bytes) != expected || chunk.bytes == 0 || chunk.stored_bytes > chunk.bytes {
                let ChunkHead { bytes, stored_bytes, .. } = chunk;
                return Err(
                    self.corrupt(offset, format!("a chunk of {bytes} bytes stored in {stored_bytes}"))
                );
            }
            self.chunks.push(offset);
            bytes += u64::from(chunk.bytes);
            offset += CHUNK_HEAD_BYTES as u64 + u64::from(chunk.stored_bytes);
        }
        if offset != end || bytes != self.head.meta.bytes {
            return Err(self.corrupt(offset, "its chunks are not as long as its head says"));
        }
        if !self.disk.read_at(&self.file, end, 1)?.is_empty() {
            return Err(self.corrupt(end, "something follows the last chunk"));
        }
        Ok(())
    }

    fn chunk_head(&self, offset: u64) -> Result<ChunkHead, StoreError> {
        let bytes = self.disk.read_at(&self.file, offset, CHUNK_HEAD_BYTES)?;
        match bytes.first_chunk() {
            Some(head) => Ok(ChunkHead::read(head)),
            None => Err(self.corrupt(offset, "a chunk's head is cut off")),
        }
    }

    /// What the snapshot says of itself.
    pub(crate) fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// How many chunks there are. All but the last have [`SnapshotHead::chunk_bytes`] bytes.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// A chunk as it is stored, with its head, and its state.
    fn stored_chunk(&self, position: u64) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let at = usize::try_from(position).ok().and_then(|position| self.chunks.get(position));
        let &offset = at.ok_or_else(|| self.corrupt(0, format!("it has no chunk {position}")))?;
        let expected = self.chunk_head(offset)?;
        if expected.stored_bytes > self.head.chunk_bytes || expected.bytes > self.head.chunk_bytes {
            return Err(self.corrupt(offset, "a chunk has changed since the file was opened"));
        }
        let stored =
            self.disk.read_at(&self.file, offset, CHUNK_HEAD_BYTES + expected.stored_bytes as usize)?;
        let whole = stored.len() == CHUNK_HEAD_BYTES + expected.stored_bytes as usize;
        let body = stored.get(CHUNK_HEAD_BYTES..).unwrap_or_default();
        if !whole || ChunkHead::new(position, expected.bytes as usize, body) != expected {
            return Err(self.corrupt(offset, format!("the checksum of chunk {position} is wrong")));
        }
        let state = if expected.stored_bytes == expected.bytes {
            body.to_vec()
        } else {
            let mut state = vec![0; expected.bytes as usize];
            let bytes = lz4_flex::block::decompress_into(body, &mut state);
            match bytes {
                Ok(bytes) if bytes == state.len() => state,
                Ok(bytes) => {
                    let reason = format!("chunk {position} is {bytes} bytes instead of {}", expected.bytes);
                    return Err(self.corrupt(offset, reason));
                }
                Err(error) => return Err(self.corrupt(offset, format!("chunk {position}: {error}"))),
            }
        };
        Ok((stored, state))
    }

    /// Hands the state to `take` piece by piece, and checks it as a whole at the end: what was taken counts only if
    /// this succeeds.
    ///
    /// # Errors
    ///
    /// When anything is damaged, or the file system says so.
    pub(crate) fn read(&self, mut take: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let (mut crc, mut stored_crc) = (0, 0);
        for position in 0..self.chunks() {
            let (stored, state) = self.stored_chunk(position)?;
            crc = checksum(crc, &state);
            stored_crc = checksum(stored_crc, &stored);
            take(&state);
        }
        if stored_crc != self.head.stored_crc {
            return Err(self.corrupt(0, "the checksum of what is stored is wrong"));
        }
        if crc != self.head.meta.crc {
            return Err(self.corrupt(0, "the checksum of the state is wrong"));
        }
        Ok(())
    }

    /// The state from `offset` on, out of chunks that are checked one by one; fewer than `bytes_max` bytes only where it
    /// ends. Unlike [`read`](SnapshotReader::read) it does not check the state as a whole.
    ///
    /// # Errors
    ///
    /// When a chunk is damaged, or the file system says so.
    pub(crate) fn read_piece(&mut self, offset: u64, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
        let chunk_bytes = u64::from(self.head.chunk_bytes);
        let end = offset.saturating_add(bytes_max as u64).min(self.head.meta.bytes);
        let mut piece = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let position = at / chunk_bytes;
            let chunk = match self.last.take() {
                Some((known, chunk)) if known == position => chunk,
                _ => self.stored_chunk(position)?.1,
            };
            let start = (at % chunk_bytes) as usize;
            let wanted = ((end - at).min(chunk_bytes - start as u64)) as usize;
            let Some(part) = chunk.get(start..start + wanted) else {
                return Err(self.corrupt(0, format!("chunk {position} is {} bytes long", chunk.len())));
            };
            piece.extend_from_slice(part);
            at += wanted as u64;
            self.last = Some((position, chunk));
        }
        Ok(piece)
    }

    fn corrupt(&self, offset: u64, reason: impl Into<String>) -> StoreError {
        StoreError::corrupt(&self.file, offset, reason)
    }
}
