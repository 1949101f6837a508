//! What a node keeps on disk: one log for all its groups, their snapshots, and whose directory it is.
//!
//! The format of the files, and what proves a batch durable, is written in `FORMAT.md` beside this file.

pub(crate) mod bench;
mod config;
mod error;
mod footprint;
mod frame;
#[cfg(any(feature = "fuzzing", all(test, feature = "sim")))]
pub(crate) mod fuzzing;
mod identity;
mod log;
mod mark;
mod record;
mod recover;
mod segment;
mod snapshot;
mod state;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::config::StoreConfig;
pub use self::error::StoreError;
use self::identity::Identity;
pub(crate) use self::log::Log;
pub(crate) use self::record::{KeptSnapshot, Place, Record, SnapshotMeta, VoteRecord};
pub(crate) use self::recover::TornTail;
pub(crate) use self::snapshot::{KeptFile, PinnedFile, SnapshotFile, SnapshotFolder};
pub(crate) use self::state::RecoveredGroup;
use crate::disk::{Disk, DiskLock};
use crate::id::{GroupId, MemberId, NodeId};

/// The node that a directory belongs to; `None` for one that no node was started on yet. A node that is to keep its state
/// must keep its id, which its transport is told before its [`Host`](crate::Host) is opened.
///
/// # Errors
///
/// When the directory says so in a way that cannot be read.
pub fn node_on(disk: &dyn Disk) -> Result<Option<NodeId>, StoreError> {
    Ok(Identity::load(disk)?.map(|identity| identity.node))
}

/// What a directory that no process has open holds of a group, and the snapshots beside it. Nothing is changed in it.
///
/// # Errors
///
/// When it is in use, damaged or newer than this program, or the file system says so.
pub(crate) fn look_at(
    disk: &Arc<dyn Disk>,
    group: GroupId,
) -> Result<Option<(RecoveredGroup, SnapshotFolder)>, StoreError> {
    let _lock = disk.lock()?;
    let Some(identity) = Identity::load(&**disk)? else { return Ok(None) };
    let Some(mut read) = recover::read_log(&**disk, identity.salt)? else { return Ok(None) };
    let Some(found) = read.groups.groups.remove(&group) else { return Ok(None) };
    let folder = SnapshotFolder::look(Arc::clone(disk), StoreConfig::default().snapshot_chunk_bytes)?;
    Ok(Some((found, folder)))
}

/// The storage of one node, open. The directory is locked until it is dropped or closed.
pub(crate) struct Store {
    /// The log, for the one task that writes it.
    pub(crate) log: Log,
    /// The snapshots; clones may be used beside the log.
    pub(crate) snapshots: SnapshotFolder,
    /// Held by whoever still uses the directory.
    pub(crate) lock: Arc<DiskLock>,
    disk: Arc<dyn Disk>,
    identity: Identity,
}

/// Who opens a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opener {
    /// Whose directory it must be, where that is known.
    pub(crate) node: Option<NodeId>,
    /// The node that an empty directory becomes, unless `node` says so: drawn at random.
    pub(crate) new_node: NodeId,
    /// What the checksums of a new log start from: drawn at random, and told nobody.
    pub(crate) new_salt: u32,
    /// The cluster, where it is known.
    pub(crate) cluster: Option<u128>,
    /// The machine's present boot; 0 where it is not known.
    pub(crate) boot: u128,
}

/// The boot of a machine that tells none, which is never the same as another.
const UNKNOWN_BOOT: u128 = 0;

/// What a store held when it was opened. All of it is durable.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Whose directory it is.
    pub(crate) node: NodeId,
    pub(crate) cluster: Option<u128>,
    /// Whether anything that was written may be missing although nothing was reported: the store was not closed, and
    /// the machine has booted since. What was written without a sync is then of unknown age.
    pub(crate) lost_unsynced: bool,
    pub(crate) groups: BTreeMap<GroupId, RecoveredGroup>,
    /// The newest member of each group that may not come back on this node.
    pub(crate) ended: BTreeMap<GroupId, MemberId>,
    /// The unfinished end of the log that was cut off.
    pub(crate) torn: Option<TornTail>,
    /// Files that are not ours and were left alone.
    pub(crate) strangers: Vec<String>,
}

impl Store {
    /// Opens the store in `disk`, or makes it.
    ///
    /// # Errors
    ///
    /// When it is locked, belongs to others, is damaged or newer than this program, or the file system says so.
    pub(crate) async fn open(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        opener: Opener,
    ) -> Result<(Self, Recovered), StoreError> {
        config.validate().map_err(StoreError::InvalidConfig)?;
        let lock = disk.lock()?;
        let found = Identity::load(&*disk)?;
        let mut identity = match found {
            Some(identity) => opener.admit(identity)?,
            None if recover::has_segments(&*disk)? => {
                return Err(StoreError::corrupt(
                    identity::IDENTITY_FILE,
                    0,
                    "missing, although there is a log",
                ));
            }
            None => opener.found(),
        };
        let same_boot = |old: Identity| opener.boot != UNKNOWN_BOOT && old.boot == opener.boot.to_le_bytes();
        let lost_unsynced = found.is_some_and(|old| !old.clean && !same_boot(old));
        if found.is_none() {
            identity.save(&*disk).await?;
        }
        let may_create = !identity.has_log();
        let opened = match Log::open(Arc::clone(&disk), config.clone(), identity.salt, may_create).await {
            Ok(opened) => opened,
            Err(error) => {
                if error.is_failed_sync() && !may_create {
                    let distrusted = Identity { boot: UNKNOWN_BOOT.to_le_bytes(), ..identity };
                    // It may be as unwilling; the error of the log is the one to tell.
                    drop(distrusted.save(&*disk).await);
                }
                return Err(error);
            }
        };
        if may_create {
            // There was no life before this one.
            (identity.boot, identity.clean) = (opener.boot.to_le_bytes(), false);
        }
        if found != Some(identity) {
            identity.save(&*disk).await?;
        }
        let snapshots = SnapshotFolder::open(Arc::clone(&disk), config.snapshot_chunk_bytes)?;
        let recovered = Recovered {
            node: identity.node,
            cluster: identity.cluster.map(u128::from_le_bytes),
            lost_unsynced,
            groups: opened.groups.groups,
            ended: opened.groups.ended,
            torn: opened.torn,
            strangers: opened.strangers.into_iter().chain(snapshots.strangers()?).collect(),
        };
        let lock = Arc::new(lock);
        Ok((Self { log: opened.log, snapshots, lock, disk, identity }, recovered))
    }

    /// Notes that this life has begun, in this boot of the machine: what it leaves is what the next one finds.
    ///
    /// Only once what the last one left is seen to, members that have lost their state above all: whoever opens the store
    /// again before that must still see how it was left.
    ///
    /// # Errors
    ///
    /// When the file system says so.
    pub(crate) async fn begin_life(&mut self, boot: u128) -> Result<(), StoreError> {
        (self.identity.boot, self.identity.clean) = (boot.to_le_bytes(), false);
        self.identity.save(&*self.disk).await
    }

    /// Notes that what this life wrote without a sync may be missing even in the same boot of the machine: after a sync that
    /// failed, the system may forget pages that never came to the disk (Rebello et al., "Can Applications Recover from
    /// fsync Failures?", USENIX ATC 2020, section 3).
    ///
    /// # Errors
    ///
    /// When the file system says so, which may be as unwilling as for the log.
    pub(crate) async fn distrust(&mut self) -> Result<(), StoreError> {
        self.begin_life(UNKNOWN_BOOT).await
    }

    /// Makes everything durable, notes that it was, and gives the directory up as far as the log goes.
    ///
    /// # Errors
    ///
    /// When the log is or becomes fenced; the next life then knows that this one was not closed.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        if let Err(error) = self.log.close().await {
            if error.is_failed_sync() {
                // It may be as unwilling; the error of the log is the one to tell.
                let boot = UNKNOWN_BOOT.to_le_bytes();
                drop(Identity { boot, clean: false, ..self.identity }.save(&*self.disk).await);
            }
            return Err(error);
        }
        Identity { clean: true, ..self.identity }.save(&*self.disk).await?;
        drop(self.lock);
        Ok(())
    }
}

impl Opener {
    fn admit(&self, mut identity: Identity) -> Result<Identity, StoreError> {
        if let Some(expected) = self.node.filter(|expected| *expected != identity.node) {
            return Err(StoreError::OtherNode { found: identity.node, expected });
        }
        check_cluster(&identity, self.cluster)?;
        identity.cluster = identity.cluster.or(self.cluster.map(u128::to_le_bytes));
        Ok(identity)
    }

    fn found(&self) -> Identity {
        let node = self.node.unwrap_or(self.new_node);
        Identity::new(node, self.cluster.map(u128::to_le_bytes), self.new_salt)
    }
}

fn check_cluster(identity: &Identity, expected: Option<u128>) -> Result<(), StoreError> {
    match (identity.cluster.map(u128::from_le_bytes), expected) {
        (Some(found), Some(expected)) if found != expected => {
            Err(StoreError::OtherCluster { found, expected })
        }
        _ => Ok(()),
    }
}
