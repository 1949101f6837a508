//! What can go wrong with a store, told so that an operator knows which file to look at.

use crate::disk::{DiskError, DiskOperation};
use crate::id::NodeId;

/// Why a store could not be opened, read or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system says no.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was durable is damaged. Nothing has been overwritten.
    #[error("{file} is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// The file, below the node's directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file was written by a newer version of this program.
    #[error("{file} has format version {found}, where this program knows {known}")]
    NewerFormat {
        /// The file, below the node's directory.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version that is known.
        known: u32,
    },
    /// The directory belongs to another node, as its file `node` says.
    #[error("node: the directory belongs to node {found}, not {expected}")]
    OtherNode {
        /// Whose it is.
        found: NodeId,
        /// Who opened it.
        expected: NodeId,
    },
    /// The directory belongs to a node of another cluster, as its file `node` says.
    #[error("node: the directory belongs to cluster {found:032x}, not {expected:032x}")]
    OtherCluster {
        /// The cluster it belongs to.
        found: u128,
        /// The cluster of whoever opened it.
        expected: u128,
    },
    /// An earlier write or sync failed: what is on the disk is unknown, and nothing more is written in this life.
    #[error("the store is fenced: {reason}")]
    Fenced {
        /// What happened first.
        reason: String,
    },
    /// The configuration cannot work.
    #[error("the configuration cannot work: {0}")]
    InvalidConfig(String),
}

impl StoreError {
    /// Whether what was written before may never come to the disk, although it reads well.
    pub(crate) fn is_failed_sync(&self) -> bool {
        matches!(self, StoreError::Disk(DiskError { operation: DiskOperation::Sync, .. }))
    }

    pub(super) fn corrupt(file: &str, offset: u64, reason: impl Into<String>) -> Self {
        StoreError::Corrupt { file: file.to_owned(), offset, reason: reason.into() }
    }
}
