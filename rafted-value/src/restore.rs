//! A group that is founded anew from the directory of a node that had a member of it: the state, not the membership.
//!
//! For a group of which too little is left to go on, or nothing but its directories: of those that are left, the one
//! with the highest [`read_log_rank`] has every command that was acknowledged under
//! [`Durability::Fsync`](crate::Durability::Fsync), if they are a majority.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::Durability;
use crate::disk::Disk;
use crate::engine::Input;
use crate::error::GroupError;
use crate::group::MachineError;
use crate::group::recover::KeptMember;
use crate::host::Host;
use crate::id::{GroupId, MemberId};
use crate::keepsake::rank_of;
use crate::open::{Unreadable, read_member};
use crate::registry::Registry;
use crate::store::{StoreError, look_at};

/// Why a group was not founded anew from a directory. Nothing was changed in that directory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreGroupError {
    /// The directory cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host cannot have the group.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The directory has nothing of the group, or its member lived in memory.
    #[error("{place} keeps nothing of group {group}")]
    NothingKept {
        /// The group.
        group: GroupId,
        /// The directory.
        place: String,
    },
}

/// How new the log is that a directory keeps of a group, with what was not committed, as
/// [`Keepsake::rank`](crate::Keepsake::rank) says it; `None` where it keeps nothing of it. The directory must not be in use;
/// nothing is changed in it. It reads the whole log of the node.
///
/// # Errors
///
/// When the directory is in use, damaged or newer than this program, or the file system says so.
pub fn read_log_rank(disk: &Arc<dyn Disk>, group: GroupId) -> Result<Option<u64>, StoreError> {
    let kept = look_at(disk, group)?.filter(|(kept, _)| kept.durability != Durability::Memory);
    Ok(kept.map(|(kept, _)| {
        let newest = kept.entries.back().map(|entry| (entry.term, entry.index));
        let (term, index) =
            newest.unwrap_or((kept.before.term, kept.before.index).max(kept.snapshot.newest()));
        rank_of(term, index)
    }))
}

fn read_kept(
    disk: &Arc<dyn Disk>,
    registry: &Registry,
    group: GroupId,
) -> Result<KeptMember, RestoreGroupError> {
    match look_at(disk, group)? {
        Some((kept, snapshots)) if kept.durability != Durability::Memory => {
            read_member(&snapshots, registry, group, kept).map_err(|error| match error {
                Unreadable::Store(error) => error.into(),
                Unreadable::Machine(error) => not_restored(group, error).into(),
            })
        }
        _ => Err(RestoreGroupError::NothingKept { group, place: disk.place() }),
    }
}

/// What whoever restores a group is told of a value that does not come back.
pub(crate) fn not_restored(group: GroupId, error: MachineError) -> GroupError {
    match error {
        MachineError::NoSuchData(name) => GroupError::NoSuchData(name),
        error => GroupError::NotRestored { group, reason: error.to_string() },
    }
}

impl Host {
    /// Founds a group anew on this node, as a group of one with the state, the sessions and the settings that `from`
    /// keeps of it, and with everything in its log, committed or not; the id of its member, which no member before had.
    /// Others are added to it as to any group.
    ///
    /// **Unsafe where the group lives on elsewhere**: then there are two of the same name, and both answer. Members of
    /// the old one that speak to this one are told that they were removed.
    ///
    /// # Errors
    ///
    /// When `from` is in use (as this host's own directory is), damaged or newer than this program, or keeps nothing of
    /// the group; [`GroupError::AlreadyExists`] if this node has a member of it, and [`GroupError::NotRestored`] if the
    /// value does not come back from what was kept.
    pub async fn restore(&self, group: GroupId, from: Arc<dyn Disk>) -> Result<MemberId, RestoreGroupError> {
        let (tell, told) = oneshot::channel();
        let registry = self.registry().clone();
        let task = async move {
            // Whoever asked may have gone.
            let _ = tell.send(read_kept(&from, &registry, group));
        };
        drop(self.env().spawn_blocking("rafted-value restore", Box::pin(task)));
        let kept = told.await.unwrap_or(Err(GroupError::Unavailable.into()))?;
        let kept = Box::new(kept);
        Ok(self.ask_member(group, |waiter| Input::Restore { group, kept, waiter }).await?)
    }
}
