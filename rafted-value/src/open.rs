//! Opens what a node kept, decides which of its members may come back, and shares it out among the loops.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::config::Durability;
use crate::disk::Disk;
use crate::env::Env;
use crate::fenced::{Fenced, fits_one_record};
use crate::group::recover::KeptMember;
use crate::group::{Machine, MachineError};
use crate::host::loop_of;
use crate::id::{GroupId, MemberId};
use crate::message::{WireEntry, WireSnapshot};
use crate::registry::Registry;
use crate::store::{
    KeptFile, KeptSnapshot, Opener, Record, Recovered, RecoveredGroup, SnapshotFile, SnapshotFolder,
    SnapshotMeta, Store, StoreConfig, StoreError,
};
use crate::transport::ClusterId;
use crate::writer::{DiskLine, Writer};

/// What a node kept, sorted by what becomes of it.
pub(crate) struct OpenStore {
    store: Store,
    config: StoreConfig,
    members: BTreeMap<GroupId, KeptMember>,
    /// Members whose files are damaged, which is for an operator to see to.
    damaged: BTreeMap<GroupId, Fenced>,
    ended: BTreeMap<GroupId, MemberId>,
}

/// What one loop gets of it.
pub(crate) struct Part {
    pub(crate) members: BTreeMap<GroupId, KeptMember>,
    pub(crate) damaged: BTreeMap<GroupId, Fenced>,
    pub(crate) ended: BTreeMap<GroupId, MemberId>,
    pub(crate) line: DiskLine,
}

impl OpenStore {
    /// Opens the store of the node behind `env`, on a thread that may wait for it.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub(crate) async fn open(
        env: &Arc<dyn Env>,
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        cluster: Option<ClusterId>,
        registry: Registry,
    ) -> Result<Self, StoreError> {
        let opener = Opener {
            node: Some(env.transport().local().node),
            new_node: env.transport().local().node,
            new_salt: env.random_u64() as u32,
            cluster: cluster.map(|cluster| cluster.0),
            boot: disk.boot(),
        };
        let (tell, told) = oneshot::channel();
        let task = async move {
            // Whoever asked may have gone.
            let _ = tell.send(Self::read(disk, config, opener, registry).await);
        };
        drop(env.spawn_blocking("rafted-value open", Box::pin(task)));
        told.await.unwrap_or(Err(StoreError::Fenced { reason: "the node ended while it was opened".into() }))
    }

    async fn read(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        opener: Opener,
        registry: Registry,
    ) -> Result<Self, StoreError> {
        let boot = opener.boot;
        let (mut store, recovered) = Store::open(disk, config.clone(), opener).await?;
        let Recovered { node, cluster, groups, mut ended, lost_unsynced, torn, strangers } = recovered;
        tracing::info!(%node, cluster = cluster.map(tracing::field::debug), groups = groups.len(), lost_unsynced, "opened a directory");
        if let Some(torn) = torn {
            tracing::info!(?torn, "the unfinished end of the log is cut off");
        }
        if !strangers.is_empty() {
            tracing::warn!(?strangers, "files that are not ours are left alone");
        }
        let (mut members, mut damaged) = (BTreeMap::new(), BTreeMap::new());
        let mut lost = Vec::new();
        for (id, group) in groups {
            let member = group.member;
            if is_lost(group.durability, lost_unsynced) {
                tracing::warn!(group = %id, %member, durability = ?group.durability, "a member has lost its state and ends");
                ended.insert(id, member);
                lost.push(Record::Ended { group: id, newest: member });
                continue;
            }
            match read_state(&store.snapshots, &registry, id, &group) {
                Ok(state) => drop(members.insert(id, with_state(group, state))),
                Err(error) => {
                    tracing::error!(group = %id, %member, %error, "a member cannot come back");
                    let fenced = damaged_member(id, group, error.to_string(), config.record_bytes_max);
                    damaged.insert(id, fenced);
                }
            }
        }
        if !lost.is_empty() {
            store.log.append(&lost).await?;
            store.log.sync().await?;
        }
        store.begin_life(boot).await?;
        // Whoever ends is on the disk before the snapshots go, which a death in between, or a loss of power, leaves here.
        let of_ended = |(group, newest): (&GroupId, &MemberId)| store.snapshots.of_ended(*group, *newest);
        let unneeded: Vec<_> = ended.iter().flat_map(of_ended).collect();
        if !unneeded.is_empty() {
            store.log.sync().await?;
            store.snapshots.remove(&unneeded).await?;
        }
        Ok(Self { store, config, members, damaged, ended })
    }

    /// Starts the writing tasks, and gives each loop what is its own.
    pub(crate) fn share_out(self, env: &Arc<dyn Env>, loops: usize) -> (Vec<Part>, Writer) {
        let (writer, lines) = Writer::start(env, self.store, self.config.mark_idle, loops);
        let part =
            |line| Part { members: BTreeMap::new(), damaged: BTreeMap::new(), ended: BTreeMap::new(), line };
        let mut parts: Vec<Part> = lines.into_iter().map(part).collect();
        for (id, kept) in self.members {
            parts[loop_of(id, loops)].members.insert(id, kept);
        }
        for (id, damage) in self.damaged {
            parts[loop_of(id, loops)].damaged.insert(id, damage);
        }
        for (id, newest) in self.ended {
            parts[loop_of(id, loops)].ended.insert(id, newest);
        }
        (parts, writer)
    }
}

/// Whether a member of this durability does not have all that it ever acknowledged.
fn is_lost(durability: Durability, lost_unsynced: bool) -> bool {
    match durability {
        Durability::Memory => true,
        Durability::Async => lost_unsynced,
        Durability::Fsync => false,
    }
}

/// Why a member cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// A file is damaged, or the log says what cannot be.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in it does not decode.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// A member with its state, decoded from where its snapshot is.
pub(crate) fn read_member(
    snapshots: &SnapshotFolder,
    registry: &Registry,
    id: GroupId,
    group: RecoveredGroup,
) -> Result<KeptMember, Unreadable> {
    let state = read_state(snapshots, registry, id, &group)?;
    Ok(with_state(group, state))
}

/// A member's snapshot, and what it holds.
struct KeptState {
    /// Without its state, if that is in a file.
    snapshot: WireSnapshot,
    file: Option<KeptFile>,
    machine: Machine,
}

fn read_state(
    snapshots: &SnapshotFolder,
    registry: &Registry,
    id: GroupId,
    group: &RecoveredGroup,
) -> Result<KeptState, Unreadable> {
    let RecoveredGroup { member, snapshot, before, .. } = group;
    match snapshot {
        KeptSnapshot::Inline(snapshot) => {
            let machine = Machine::restore(id, registry, snapshot.index, &snapshot.state)?;
            Ok(KeptState { snapshot: snapshot.clone(), file: None, machine })
        }
        KeptSnapshot::File(meta) => {
            let (file, state) = find_snapshot(snapshots, id, *member, meta.index, before.index)?;
            let SnapshotMeta { index, term, voters, learners, .. } = file.meta().clone();
            let machine = Machine::restore(id, registry, index, &state)?;
            let snapshot = WireSnapshot { index, term, voters, learners, state: Bytes::new() };
            Ok(KeptState { snapshot, file: Some(file), machine })
        }
        KeptSnapshot::Nothing => {
            let reason = format!("member {member} of group {id} has no snapshot");
            Err(StoreError::Corrupt { file: "log".into(), offset: 0, reason }.into())
        }
    }
}

fn with_state(group: RecoveredGroup, state: KeptState) -> KeptMember {
    let RecoveredGroup { member, durability, vote, before, entries, .. } = group;
    let KeptState { snapshot, file, machine } = state;
    let (machine, entries, before) = (Box::new(machine), entries.into(), (before.index, before.term));
    KeptMember { member, durability, snapshot, file, machine, vote, before, entries }
}

/// All that the disk has of a member that is damaged.
fn damaged_member(id: GroupId, group: RecoveredGroup, reason: String, record_bytes_max: usize) -> Fenced {
    let RecoveredGroup { member, durability, snapshot, vote, before, entries } = group;
    let (group, term) = (id, vote.term);
    let entries: Vec<WireEntry> = entries.into();
    let kept = fits_one_record(entries.iter().map(WireEntry::about_bytes).sum(), record_bytes_max)
        .then_some(Record::Base { group, member, durability, snapshot, vote, before, entries });
    Fenced { member, term, reason, kept }
}

/// The snapshot at `index`, of which the log speaks; where it is damaged, the one before it will do if the log still has
/// all since `before`.
fn find_snapshot(
    snapshots: &SnapshotFolder,
    group: GroupId,
    member: MemberId,
    index: u64,
    before: u64,
) -> Result<(KeptFile, Bytes), StoreError> {
    let damage = match KeptFile::find(snapshots, SnapshotFile { group, member, index }) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let older = snapshots.of_group(group).into_iter().rev();
    for file in older.filter(|file| file.member == member && (before..index).contains(&file.index)) {
        if let Ok(found) = KeptFile::find(snapshots, file) {
            tracing::warn!(%group, %member, %damage, index = file.index, "an older snapshot takes its place");
            return Ok(found);
        }
    }
    Err(damage)
}
