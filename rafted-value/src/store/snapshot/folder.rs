//! The snapshot files of a node: their names, which of them is whole, and which may go.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::{Place, StoreError};
use super::{SNAPSHOT_FOLDER, SnapshotHead, SnapshotReader, SnapshotWriter};
use crate::disk::{Disk, DiskEntry, DiskReason, TEMPORARY};
use crate::id::{GroupId, MemberId};
use crate::store::SnapshotMeta;

const ENDING: &str = ".snap";
/// How many snapshots of a group are kept.
const KEPT: usize = 2;

/// One snapshot of one member, by the newest entry in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) index: u64,
}

/// The file of a snapshot.
pub(super) fn file_of(name: SnapshotFile) -> String {
    let SnapshotFile { group, member, index } = name;
    format!("{SNAPSHOT_FOLDER}/{:016x}-{:016x}-{index:016x}{ENDING}", group.0, member.0)
}

/// The snapshot that a file of the folder is; `None` for a stranger.
fn snapshot_of(name: &str) -> Option<SnapshotFile> {
    let mut parts = name.strip_suffix(ENDING)?.split('-').map(|part| u64::from_str_radix(part, 16).ok());
    let (group, member, index) = (parts.next()??, parts.next()??, parts.next()??);
    let found = SnapshotFile { group: GroupId(group), member: MemberId(member), index };
    (file_of(found).strip_prefix(SNAPSHOT_FOLDER)?.strip_prefix('/')? == name).then_some(found)
}

/// The snapshots of a node.
#[derive(Clone)]
pub(crate) struct SnapshotFolder {
    disk: Arc<dyn Disk>,
    chunk_bytes: u32,
    /// The snapshots that are there, so that nobody lists a folder of thousands.
    files: Arc<Mutex<BTreeSet<SnapshotFile>>>,
    /// Snapshots that somebody reads, and how many do.
    pinned: Arc<Mutex<BTreeMap<SnapshotFile, usize>>>,
}

impl SnapshotFolder {
    /// The folder in `disk`; removes what a crash left unfinished.
    pub(in crate::store) fn open(disk: Arc<dyn Disk>, chunk_bytes: usize) -> Result<Self, StoreError> {
        let entries = disk.list(SNAPSHOT_FOLDER)?;
        for entry in &entries {
            if entry.name.strip_suffix(TEMPORARY).is_some_and(|name| snapshot_of(name).is_some()) {
                disk.remove(&format!("{SNAPSHOT_FOLDER}/{}", entry.name))?;
            }
        }
        Ok(Self::of(disk, chunk_bytes, &entries))
    }

    /// The folder in `disk` as it is, to be read.
    pub(in crate::store) fn look(disk: Arc<dyn Disk>, chunk_bytes: usize) -> Result<Self, StoreError> {
        let entries = disk.list(SNAPSHOT_FOLDER)?;
        Ok(Self::of(disk, chunk_bytes, &entries))
    }

    fn of(disk: Arc<dyn Disk>, chunk_bytes: usize, entries: &[DiskEntry]) -> Self {
        let files: BTreeSet<SnapshotFile> =
            entries.iter().filter_map(|entry| snapshot_of(&entry.name)).collect();
        let chunk_bytes = u32::try_from(chunk_bytes).unwrap_or(u32::MAX);
        Self { disk, chunk_bytes, files: Arc::new(Mutex::new(files)), pinned: Arc::default() }
    }

    /// Files of the folder that are no snapshots.
    pub(in crate::store) fn strangers(&self) -> Result<Vec<String>, StoreError> {
        let names = self.disk.list(SNAPSHOT_FOLDER)?.into_iter().map(|entry| entry.name);
        let strangers = names.filter(|name| snapshot_of(name).is_none());
        Ok(strangers.map(|name| format!("{SNAPSHOT_FOLDER}/{name}")).collect())
    }

    /// The snapshots of a group, the oldest of the oldest member first.
    pub(crate) fn of_group(&self, group: GroupId) -> Vec<SnapshotFile> {
        let ends = [(MemberId(0), 0), (MemberId(u64::MAX), u64::MAX)];
        let [first, last] = ends.map(|(member, index)| SnapshotFile { group, member, index });
        self.files.lock().range(first..=last).copied().collect()
    }

    /// Begins a snapshot of the state after the entry at `at`, with these members.
    ///
    /// # Errors
    ///
    /// When the file system says so.
    pub(crate) fn begin(
        &self,
        (group, member): (GroupId, MemberId),
        at: Place,
        voters: Vec<MemberId>,
        learners: Vec<MemberId>,
    ) -> Result<SnapshotWriter, StoreError> {
        let meta = SnapshotMeta { index: at.index, term: at.term, voters, learners, bytes: 0, crc: 0 };
        let chunk_bytes = self.chunk_bytes;
        let head = SnapshotHead { group, member, meta, chunk_bytes, stored_bytes: 0, stored_crc: 0 };
        SnapshotWriter::begin(Arc::clone(&self.disk), Arc::clone(&self.files), head)
    }

    /// Opens a snapshot. Its state is checked only when it is read.
    ///
    /// # Errors
    ///
    /// When it is not there, damaged or newer than this program, or the file system says so.
    pub(crate) fn read(&self, name: SnapshotFile) -> Result<SnapshotReader, StoreError> {
        SnapshotReader::open(Arc::clone(&self.disk), name)
    }

    /// Keeps a snapshot from being pruned until [`unpin`](SnapshotFolder::unpin) was called as often.
    pub(super) fn pin(&self, name: SnapshotFile) {
        *self.pinned.lock().entry(name).or_default() += 1;
    }

    pub(super) fn unpin(&self, name: SnapshotFile) {
        if let Entry::Occupied(mut pins) = self.pinned.lock().entry(name) {
            *pins.get_mut() -= 1;
            if *pins.get() == 0 {
                pins.remove();
            }
        }
    }

    /// Snapshots of a member that are older than its two newest and than `used`, the one its log speaks of, and all of
    /// members before it, but none that somebody reads: it goes with a later one.
    pub(crate) fn unneeded(&self, used: SnapshotFile) -> Vec<SnapshotFile> {
        let mut old = self.of_group(used.group);
        let mine = old.iter().rev().filter(|file| file.member == used.member);
        let kept_from = mine.take(KEPT).last().map_or(used, |file| used.min(*file));
        {
            let pinned = self.pinned.lock();
            old.retain(|file| *file < kept_from && !pinned.contains_key(file));
        }
        old
    }

    /// All snapshots of a group's members up to `newest`, which have ended.
    pub(crate) fn of_ended(&self, group: GroupId, newest: MemberId) -> Vec<SnapshotFile> {
        let mut ended = self.of_group(group);
        ended.retain(|file| file.member <= newest);
        ended
    }

    /// Removes snapshots of which the log does not speak any more, however much of it is lost. Gives how many.
    ///
    /// # Errors
    ///
    /// When the file system says so.
    pub(crate) async fn remove(&self, files: &[SnapshotFile]) -> Result<usize, StoreError> {
        for file in files {
            match self.disk.remove(&file_of(*file)) {
                Err(error) if error.reason != DiskReason::NotFound => return Err(error.into()),
                _ => self.files.lock().remove(file),
            };
        }
        if !files.is_empty() {
            self.disk.sync_folder(SNAPSHOT_FOLDER).await?;
        }
        Ok(files.len())
    }
}
