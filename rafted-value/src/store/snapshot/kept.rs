//! A snapshot whose state is in its file and nowhere else: read whole, or in pieces, when somebody needs it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::StoreError;
use super::folder::{SnapshotFile, SnapshotFolder, file_of};
use super::{SnapshotMeta, SnapshotReader};

/// A snapshot that is durable in its file. It is there as long as its member's log speaks of it.
#[derive(Clone)]
pub(crate) struct KeptFile {
    folder: SnapshotFolder,
    name: SnapshotFile,
    meta: SnapshotMeta,
}

impl KeptFile {
    /// The snapshot `name` of a folder, of which its file says `meta`.
    pub(crate) fn new(folder: &SnapshotFolder, name: SnapshotFile, meta: SnapshotMeta) -> Self {
        Self { folder: folder.clone(), name, meta }
    }

    /// The snapshot `name` of a folder, and its whole state.
    ///
    /// # Errors
    ///
    /// When it is not there, damaged or newer than this program, or the file system says so.
    pub(crate) fn find(folder: &SnapshotFolder, name: SnapshotFile) -> Result<(Self, Bytes), StoreError> {
        let reader = folder.read(name)?;
        let kept = Self::new(folder, name, reader.head().meta.clone());
        Ok((kept, read_whole(&reader)?))
    }

    pub(crate) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The whole state, checked as a whole. Blocks the thread while it is read.
    ///
    /// # Errors
    ///
    /// When it is not there or damaged, or the file system says so.
    pub(crate) fn load(&self) -> Result<Bytes, StoreError> {
        read_whole(&self.folder.read(self.name)?)
    }

    /// The same snapshot to be read in pieces: its file stays until this is dropped, however many newer ones there are.
    pub(crate) fn pin(&self) -> Arc<PinnedFile> {
        self.folder.pin(self.name);
        Arc::new(PinnedFile { kept: self.clone(), reader: Mutex::new(None) })
    }
}

impl fmt::Debug for KeptFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptFile").field("meta", &self.meta).finish_non_exhaustive()
    }
}

fn read_whole(reader: &SnapshotReader) -> Result<Bytes, StoreError> {
    let mut state = Vec::new();
    reader.read(|chunk| state.extend_from_slice(chunk))?;
    Ok(state.into())
}

/// A snapshot that is read in pieces.
pub(crate) struct PinnedFile {
    kept: KeptFile,
    /// Open from the first piece on: it knows where the chunks are.
    reader: Mutex<Option<SnapshotReader>>,
}

impl PinnedFile {
    /// The piece of the state at `offset`, out of chunks whose checksums are right. Blocks the thread.
    ///
    /// # Errors
    ///
    /// When the file is not there, damaged, or no more the one that was pinned, or the file system says so.
    pub(crate) fn read_piece(&self, offset: u64, bytes_max: usize) -> Result<Bytes, StoreError> {
        let mut open = self.reader.lock();
        let mut reader = match open.take() {
            Some(reader) => reader,
            None => self.open()?,
        };
        let piece = reader.read_piece(offset, bytes_max)?;
        *open = Some(reader);
        Ok(piece.into())
    }

    fn open(&self) -> Result<SnapshotReader, StoreError> {
        let KeptFile { folder, name, meta } = &self.kept;
        let reader = folder.read(*name)?;
        if reader.head().meta != *meta {
            return Err(StoreError::corrupt(&file_of(*name), 0, "it is not the snapshot that was written"));
        }
        Ok(reader)
    }
}

impl fmt::Debug for PinnedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedFile").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl Drop for PinnedFile {
    fn drop(&mut self) {
        self.kept.folder.unpin(self.kept.name);
    }
}
