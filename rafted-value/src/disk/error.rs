//! What can go wrong with a file, with the file's name and what was being done.

use std::fmt;
use std::io;

/// An operation on a file or folder that went wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{operation} {file:?}: {reason}")]
pub struct DiskError {
    /// The file or folder, below the node's directory; the directory itself where it is empty.
    pub file: String,
    /// What was being done.
    pub operation: DiskOperation,
    /// Why it went wrong.
    pub reason: DiskReason,
}

/// What is done with files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DiskOperation {
    /// Listing a folder.
    List,
    /// Reading.
    Read,
    /// Opening, or making.
    Open,
    /// Writing.
    Write,
    /// Cutting off an end.
    Truncate,
    /// Making durable.
    Sync,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Locking the directory.
    Lock,
}

/// Why an operation on a file went wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskReason {
    /// No room is left, or none of this user's quota.
    #[error("the disk is full")]
    Full,
    /// The process may not do that.
    #[error("permission denied")]
    Permission,
    /// There is no such file.
    #[error("not found")]
    NotFound,
    /// The directory is locked.
    #[error("{directory} is in use by another process")]
    InUse {
        /// The directory that is locked.
        directory: String,
    },
    /// What the operating system says.
    #[error("{0}")]
    Other(String),
}

impl DiskError {
    /// An operation on `file` that failed for `reason`.
    pub fn new(file: &str, operation: DiskOperation, reason: DiskReason) -> Self {
        Self { file: file.to_owned(), operation, reason }
    }

    pub(super) fn from_io(file: &str, operation: DiskOperation, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskReason::Full,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => DiskReason::Permission,
            io::ErrorKind::NotFound => DiskReason::NotFound,
            _ => DiskReason::Other(error.to_string()),
        };
        Self::new(file, operation, reason)
    }
}

impl fmt::Display for DiskOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskOperation::List => "list",
            DiskOperation::Read => "read",
            DiskOperation::Open => "open",
            DiskOperation::Write => "write",
            DiskOperation::Truncate => "truncate",
            DiskOperation::Sync => "sync",
            DiskOperation::Rename => "rename",
            DiskOperation::Remove => "remove",
            DiskOperation::Lock => "lock",
        })
    }
}
