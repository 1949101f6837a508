//! The door to the file system: one directory of a node, real or simulated.
//!
//! A file's name is `file` or `folder/file`; folders are made when a file in them is. Calls may block the calling
//! thread, and what a returned future does may too while it is polled: use a disk only from a task that may block.
//!
//! What is written is durable once [`DiskFile::sync`] has succeeded, and a new or renamed file keeps its name only once
//! [`Disk::sync_folder`] has. After a failed write or sync nobody knows what the file holds: whoever gets one must not
//! try again, since the operating system may have dropped the pages and report success the next time.

mod error;
mod real;

use std::fmt;

pub use self::error::{DiskError, DiskOperation, DiskReason};
pub use self::real::RealDisk;
use crate::env::BoxFuture;

/// One file of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskEntry {
    /// The name within its folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// One directory that belongs to one node.
pub trait Disk: Send + Sync + 'static {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// The files of a folder, by name; of the directory itself with an empty `folder`. A folder that is not there has
    /// no files.
    ///
    /// # Errors
    ///
    /// When the file system says so.
    fn list(&self, folder: &str) -> Result<Vec<DiskEntry>, DiskError>;

    /// Up to `bytes_max` bytes of a file from `offset` on; fewer only where the file ends.
    ///
    /// # Errors
    ///
    /// [`DiskReason::NotFound`] when there is no such file, and what the file system says.
    fn read_at(&self, file: &str, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError>;

    /// Opens a file to be written; an empty one is made, and its folder, where there is none.
    ///
    /// # Errors
    ///
    /// When the file system says so.
    fn open(&self, file: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Gives a file another name in the same folder, in place of the file that had it.
    ///
    /// # Errors
    ///
    /// [`DiskReason::NotFound`] when there is no such file, and what the file system says.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// [`DiskReason::NotFound`] when there is no such file, and what the file system says.
    fn remove(&self, file: &str) -> Result<(), DiskError>;

    /// Makes every name of a folder durable: what was made, renamed or removed before the call.
    ///
    /// The future fails as the file system does.
    fn sync_folder(&self, folder: &str) -> BoxFuture<Result<(), DiskError>>;

    /// Claims the directory until the lock is dropped.
    ///
    /// # Errors
    ///
    /// [`DiskReason::InUse`] while another process, or another lock of this one, holds it.
    fn lock(&self) -> Result<DiskLock, DiskError>;
}

/// A file that is open to be written.
pub trait DiskFile: Send + 'static {
    /// Writes at `offset`; what lies between the end of the file and `offset` becomes zeros.
    ///
    /// # Errors
    ///
    /// When the file system says so; the file may then hold any part of `bytes`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Cuts the file to `bytes`.
    ///
    /// # Errors
    ///
    /// When the file system says so.
    fn truncate(&mut self, bytes: u64) -> Result<(), DiskError>;

    /// Makes durable what was written or cut before the call, as `fdatasync` does.
    ///
    /// The future fails as the file system does.
    fn sync(&mut self) -> BoxFuture<Result<(), DiskError>>;
}

/// A claim of a directory, given up when it is dropped.
pub struct DiskLock(#[allow(dead_code, reason = "held, never looked at")] Box<dyn Send + Sync>);

impl DiskLock {
    /// A lock that lasts as long as `holder` lives; for implementations of [`Disk`].
    pub fn new(holder: impl Send + Sync + 'static) -> Self {
        Self(Box::new(holder))
    }
}

impl fmt::Debug for DiskLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskLock")
    }
}

/// What a name ends in while its file is being written: a leftover of a crash.
pub const TEMPORARY: &str = ".tmp";

/// Replaces a file by `bytes` so that a crash leaves the old one or the new one, whole.
///
/// # Errors
///
/// When the file system says so; then the old file may still be there, or the new one.
pub async fn replace(disk: &dyn Disk, file: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = format!("{file}{TEMPORARY}");
    let mut out = disk.open(&temporary)?;
    out.truncate(0)?;
    out.write_at(0, bytes)?;
    out.sync().await?;
    drop(out);
    disk.rename(&temporary, file)?;
    disk.sync_folder(folder_of(file)).await
}

/// The folder of a file's name; empty for a file of the directory itself.
pub(crate) fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether a name is one that [`Disk`] takes: at most one folder, and nothing that leads elsewhere.
pub(crate) fn is_name(file: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
    file.split('/').count() <= 2 && file.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for good in ["lock", "log/0.seg"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "/", "/a", "a/", "..", "../a", "a/../b", "a/b/c", "a\\b"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert_eq!((folder_of("lock"), folder_of("log/0.seg")), ("", "log"));
    }
}
