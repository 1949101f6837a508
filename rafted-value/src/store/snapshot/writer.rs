//! Writes a snapshot chunk by chunk under a temporary name, and gives it its own once it is durable.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::StoreError;
use super::super::frame::checksum;
use super::folder::{SnapshotFile, file_of};
use super::{ChunkHead, SNAPSHOT_FOLDER, SnapshotHead};
use crate::disk::{Disk, DiskFile, TEMPORARY};
use crate::store::SnapshotMeta;

/// A snapshot that is being written. What is dropped before [`finish`](SnapshotWriter::finish) leaves a temporary file,
/// which the next life removes.
pub(crate) struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    /// Where the snapshot is added once it is there.
    files: Arc<Mutex<BTreeSet<SnapshotFile>>>,
    file: Box<dyn DiskFile>,
    temporary: String,
    head: SnapshotHead,
    /// State that does not fill a chunk yet.
    chunk: Vec<u8>,
    position: u64,
    offset: u64,
    stored: Vec<u8>,
}

impl SnapshotWriter {
    /// Begins the file of `head`, whose totals are zero.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        files: Arc<Mutex<BTreeSet<SnapshotFile>>>,
        head: SnapshotHead,
    ) -> Result<Self, StoreError> {
        let name = SnapshotFile { group: head.group, member: head.member, index: head.meta.index };
        let temporary = format!("{}{TEMPORARY}", file_of(name));
        let mut file = disk.open(&temporary)?;
        file.truncate(0)?;
        let encoded = head.encode();
        file.write_at(0, &encoded)?;
        let (offset, chunk) = (encoded.len() as u64, Vec::with_capacity(head.chunk_bytes as usize));
        Ok(Self { disk, files, file, temporary, head, chunk, position: 0, offset, stored: Vec::new() })
    }

    /// Takes the next bytes of the state, however many.
    ///
    /// # Errors
    ///
    /// When the file system says so; the snapshot must then be given up.
    pub(crate) fn write(&mut self, mut state: &[u8]) -> Result<(), StoreError> {
        let chunk_bytes = self.head.chunk_bytes as usize;
        self.head.meta.bytes += state.len() as u64;
        self.head.meta.crc = checksum(self.head.meta.crc, state);
        while !state.is_empty() {
            let (now, later) = state.split_at(state.len().min(chunk_bytes - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            if self.chunk.len() == chunk_bytes {
                self.write_chunk()?;
            }
            state = later;
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), StoreError> {
        self.stored.resize(lz4_flex::block::get_maximum_output_size(self.chunk.len()), 0);
        let compressed = lz4_flex::block::compress_into(&self.chunk, &mut self.stored);
        let stored = match compressed {
            Ok(bytes) if bytes < self.chunk.len() => &self.stored[..bytes],
            _ => &self.chunk[..],
        };
        let head = ChunkHead::new(self.position, self.chunk.len(), stored).write();
        let mut out = Vec::with_capacity(head.len() + stored.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(stored);
        self.file.write_at(self.offset, &out)?;
        self.head.stored_crc = checksum(self.head.stored_crc, &out);
        self.head.stored_bytes += out.len() as u64;
        self.offset += out.len() as u64;
        self.position += 1;
        self.chunk.clear();
        Ok(())
    }

    /// Makes the snapshot durable under its own name; only now may a record speak of it.
    ///
    /// # Errors
    ///
    /// When the file system says so; the snapshot must then be given up.
    pub(crate) async fn finish(mut self) -> Result<SnapshotMeta, StoreError> {
        if !self.chunk.is_empty() {
            self.write_chunk()?;
        }
        self.file.write_at(0, &self.head.encode())?;
        self.file.sync().await?;
        let SnapshotHead { group, member, meta, .. } = self.head;
        let name = SnapshotFile { group, member, index: meta.index };
        self.disk.rename(&self.temporary, &file_of(name))?;
        self.disk.sync_folder(SNAPSHOT_FOLDER).await?;
        self.files.lock().insert(name);
        Ok(meta)
    }
}
