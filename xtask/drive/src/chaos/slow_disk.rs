//! A disk whose syncs take as long as a file says: there is no other way to slow one process's disk on every machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rafted_value::disk::{Disk, DiskEntry, DiskError, DiskFile, DiskLock, RealDisk};
use rafted_value::env::BoxFuture;

/// A real disk, slowed.
pub(super) struct SlowDisk {
    disk: Arc<RealDisk>,
    /// Milliseconds that a sync waits, if there is such a file.
    file: PathBuf,
}

impl SlowDisk {
    /// A disk that is as slow as `file` says at the moment.
    pub(super) fn over(disk: Arc<RealDisk>, file: PathBuf) -> Self {
        Self { disk, file }
    }
}

/// Waits as long as the file says.
async fn slowness(file: PathBuf) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    if let Ok(wait_ms) = text.trim().parse() {
        super::clients::wait(Duration::from_millis(wait_ms)).await;
    }
}

impl Disk for SlowDisk {
    fn place(&self) -> String {
        self.disk.place()
    }

    fn boot(&self) -> u128 {
        self.disk.boot()
    }

    fn list(&self, folder: &str) -> Result<Vec<DiskEntry>, DiskError> {
        self.disk.list(folder)
    }

    fn read_at(&self, file: &str, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
        self.disk.read_at(file, offset, bytes_max)
    }

    fn open(&self, file: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let opened = self.disk.open(file)?;
        Ok(Box::new(SlowFile { opened, file: self.file.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.disk.remove(file)
    }

    fn sync_folder(&self, folder: &str) -> BoxFuture<Result<(), DiskError>> {
        let (wait, sync) = (slowness(self.file.clone()), self.disk.sync_folder(folder));
        Box::pin(async move {
            wait.await;
            sync.await
        })
    }

    fn lock(&self) -> Result<DiskLock, DiskError> {
        self.disk.lock()
    }
}

struct SlowFile {
    opened: Box<dyn DiskFile>,
    file: PathBuf,
}

impl DiskFile for SlowFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.opened.write_at(offset, bytes)
    }

    fn truncate(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.opened.truncate(bytes)
    }

    fn sync(&mut self) -> BoxFuture<Result<(), DiskError>> {
        let (wait, sync) = (slowness(self.file.clone()), self.opened.sync());
        Box::pin(async move {
            wait.await;
            sync.await
        })
    }
}
