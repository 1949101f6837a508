//! A simulated disk: it outlives the lives of its node, and a crash decides what becomes of each unsynced write.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk_file::{FileState, Write};
use super::random::SimRng;
use crate::disk::{
    Disk, DiskEntry, DiskError, DiskFile, DiskLock, DiskOperation, DiskReason, folder_of, is_name,
};
use crate::env::BoxFuture;

/// How long a sync takes: called once a sync, which completes when the future does.
pub type SyncLatency = Arc<dyn Fn() -> BoxFuture<()> + Send + Sync>;

/// The disk of a simulated node. Clones are handles of the same one.
///
/// What a program sees is [`SimDisk::disk`], one value for each life of the node; what a test does to it is here.
///
/// - A [`crash`](SimDisk::crash) decides for every unsynced write on its own whether it is kept, lost or torn (a
///   beginning of it, or some of its sectors, the rest zeros), and for every file made, renamed or removed since its
///   folder was synced whether that happened.
/// - A failed sync is as on Linux: its writes are still read, but no later sync makes them durable.
/// - A [`kill`](SimDisk::kill) ends the process only: what was written stays readable.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    rng: SimRng,
    /// Counts crashes and kills; what an earlier life holds is dead.
    life: u64,
    /// Counts crashes, from 1.
    boot: u64,
    locked: bool,
    next_id: u64,
    files: BTreeMap<FileId, FileState>,
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    changes: Vec<Change>,
    bytes_max: Option<u64>,
    failing_writes: u32,
    failing_syncs: u32,
    latency: Option<SyncLatency>,
    syncs: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

/// A change of names that its folder's next sync makes durable.
struct Change {
    id: u64,
    folder: String,
    removed: Option<String>,
    added: Option<(String, FileId)>,
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        if let Some(name) = &self.removed {
            names.remove(name);
        }
        if let Some((name, id)) = &self.added {
            names.insert(name.clone(), *id);
        }
    }
}

impl SimDisk {
    /// An empty disk whose crashes `rng` decides; see [`Sim::rng`](super::Sim::rng).
    pub fn new(rng: SimRng) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng,
            life: 0,
            boot: 1,
            locked: false,
            next_id: 0,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            bytes_max: None,
            failing_writes: 0,
            failing_syncs: 0,
            latency: None,
            syncs: 0,
        })))
    }

    /// The disk as the node's present life sees it. After a crash or kill it fails every call.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(LifeDisk { state: self.clone(), life: self.0.lock().life })
    }

    /// Power fails: each unsynced write and change of names is kept, lost or torn. The lock is free again.
    pub fn crash(&self) {
        let state = &mut *self.0.lock();
        for change in std::mem::take(&mut state.changes) {
            if state.rng.chance(0.5) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for file in state.files.values_mut() {
            file.crash(&mut state.rng);
        }
        state.boot += 1;
        state.next_life();
    }

    /// The process ends and the machine goes on: what was written is still read, synced or not. The lock is free again.
    pub fn kill(&self) {
        self.0.lock().next_life();
    }

    /// The next `count` writes fail, and nothing of them is written.
    pub fn fail_writes(&self, count: u32) {
        self.0.lock().failing_writes = count;
    }

    /// The next `count` syncs fail, of files or folders.
    pub fn fail_syncs(&self, count: u32) {
        self.0.lock().failing_syncs = count;
    }

    /// How many bytes all files together may have; `None` for any number.
    pub fn set_bytes_max(&self, bytes_max: Option<u64>) {
        self.0.lock().bytes_max = bytes_max;
    }

    /// How long syncs take from now on; `None` for no time.
    pub fn set_sync_latency(&self, latency: Option<SyncLatency>) {
        self.0.lock().latency = latency;
    }

    /// Turns one bit of a file, for good. False when the file is not there or not that long.
    pub fn flip_bit(&self, file: &str, bit: u64) -> bool {
        let state = &mut *self.0.lock();
        let found = state.names.get(file).and_then(|id| state.files.get_mut(id));
        found.is_some_and(|file| file.flip_bit(bit))
    }

    /// Every file as it reads now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock();
        state.names.iter().map(|(name, id)| (name.clone(), state.files[id].bytes.clone())).collect()
    }

    /// Puts a durable file there, or takes one away, behind the node's back.
    pub fn put(&self, file: &str, bytes: Option<Vec<u8>>) {
        let state = &mut *self.0.lock();
        state.names.remove(file);
        state.durable_names.remove(file);
        if let Some(bytes) = bytes {
            let id = FileId(state.next_id());
            state.files.insert(id, FileState::durable(bytes));
            state.names.insert(file.to_owned(), id);
            state.durable_names.insert(file.to_owned(), id);
        }
        state.forget();
    }

    /// Whether anything was written that no sync has made durable yet.
    pub fn has_unsynced(&self) -> bool {
        self.0.lock().files.values().any(FileState::is_unsynced)
    }

    /// How many syncs have succeeded, of files and folders.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("life", &self.0.lock().life).finish_non_exhaustive()
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn next_life(&mut self) {
        self.life += 1;
        self.locked = false;
        self.forget();
    }

    /// Drops files that no name leads to and none will lead to again.
    fn forget(&mut self) {
        let Self { files, names, durable_names, changes, .. } = self;
        let added =
            |id: &FileId| changes.iter().any(|change| change.added.as_ref().is_some_and(|new| new.1 == *id));
        let named = |id: &FileId| names.values().chain(durable_names.values()).any(|other| other == id);
        files.retain(|id, _| named(id) || added(id));
    }

    fn find(&self, file: &str, operation: DiskOperation) -> Result<FileId, DiskError> {
        let found = self.names.get(file).copied();
        found.ok_or_else(|| DiskError::new(file, operation, DiskReason::NotFound))
    }

    fn change(&mut self, folder: &str, removed: Option<String>, added: Option<(String, FileId)>) {
        let change = Change { id: self.next_id(), folder: folder.to_owned(), removed, added };
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn bytes(&self) -> u64 {
        self.names.values().map(|id| self.files[id].bytes.len() as u64).sum()
    }

    /// Whether this sync is one that fails.
    fn sync_fails(&mut self) -> bool {
        let fails = self.failing_syncs > 0;
        self.failing_syncs = self.failing_syncs.saturating_sub(1);
        self.syncs += u64::from(!fails);
        fails
    }
}

/// The disk as one life of the node sees it.
#[derive(Clone)]
struct LifeDisk {
    state: SimDisk,
    life: u64,
}

impl LifeDisk {
    /// The state, for this life only and for names that lead nowhere else.
    fn state(
        &self,
        file: &str,
        operation: DiskOperation,
    ) -> Result<parking_lot::MutexGuard<'_, State>, DiskError> {
        let state = self.state.0.lock();
        let wrong = if state.life != self.life {
            Some("the node has crashed")
        } else if !file.is_empty() && !is_name(file) {
            Some("not a name of a file")
        } else {
            None
        };
        match wrong {
            Some(reason) => Err(DiskError::new(file, operation, DiskReason::Other(reason.into()))),
            None => Ok(state),
        }
    }

    /// Waits as long as a sync takes.
    fn latency(&self) -> Option<BoxFuture<()>> {
        let latency = self.state.0.lock().latency.clone();
        latency.map(|latency| latency())
    }
}

impl Disk for LifeDisk {
    fn place(&self) -> String {
        "a simulated disk".into()
    }

    fn boot(&self) -> u128 {
        u128::from(self.state.0.lock().boot)
    }

    fn list(&self, folder: &str) -> Result<Vec<DiskEntry>, DiskError> {
        let state = self.state(folder, DiskOperation::List)?;
        let here = state.names.iter().filter(|(name, _)| folder_of(name) == folder);
        let entry = |(name, id): (&String, &FileId)| DiskEntry {
            name: name.rsplit('/').next().unwrap_or(name).to_owned(),
            bytes: state.files[id].bytes.len() as u64,
        };
        Ok(here.map(entry).collect())
    }

    fn read_at(&self, file: &str, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
        let state = self.state(file, DiskOperation::Read)?;
        let bytes = &state.files[&state.find(file, DiskOperation::Read)?].bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(bytes_max).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }

    fn open(&self, file: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut state = self.state(file, DiskOperation::Open)?;
        let id = match state.names.get(file) {
            Some(id) => *id,
            None => {
                let id = FileId(state.next_id());
                state.files.insert(id, FileState::default());
                state.change(folder_of(file), None, Some((file.to_owned(), id)));
                id
            }
        };
        Ok(Box::new(LifeFile { disk: self.clone(), id, name: file.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.state(from, DiskOperation::Rename)?;
        let id = state.find(from, DiskOperation::Rename)?;
        if !is_name(to) || folder_of(from) != folder_of(to) {
            let reason = DiskReason::Other(format!("{to:?} is not a name in the same folder"));
            return Err(DiskError::new(from, DiskOperation::Rename, reason));
        }
        state.change(folder_of(from), Some(from.to_owned()), Some((to.to_owned(), id)));
        Ok(())
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        let mut state = self.state(file, DiskOperation::Remove)?;
        state.find(file, DiskOperation::Remove)?;
        state.change(folder_of(file), Some(file.to_owned()), None);
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> BoxFuture<Result<(), DiskError>> {
        let (disk, folder, latency) = (self.clone(), folder.to_owned(), self.latency());
        let upto = self.state.0.lock().next_id;
        Box::pin(async move {
            if let Some(latency) = latency {
                latency.await;
            }
            let state = &mut *disk.state(&folder, DiskOperation::Sync)?;
            if state.sync_fails() {
                let reason = DiskReason::Other("a simulated failure".into());
                return Err(DiskError::new(&folder, DiskOperation::Sync, reason));
            }
            let changes = std::mem::take(&mut state.changes);
            for change in changes {
                if change.folder == folder && change.id <= upto {
                    change.apply(&mut state.durable_names);
                } else {
                    state.changes.push(change);
                }
            }
            state.forget();
            Ok(())
        })
    }

    fn lock(&self) -> Result<DiskLock, DiskError> {
        let mut state = self.state("lock", DiskOperation::Lock)?;
        if state.locked {
            let reason = DiskReason::InUse { directory: self.place() };
            return Err(DiskError::new("lock", DiskOperation::Lock, reason));
        }
        state.locked = true;
        Ok(DiskLock::new(LifeLock(self.clone())))
    }
}

struct LifeLock(LifeDisk);

impl Drop for LifeLock {
    fn drop(&mut self) {
        // The lock of an earlier life is free already.
        if let Ok(mut state) = self.0.state("", DiskOperation::Lock) {
            state.locked = false;
        }
    }
}

struct LifeFile {
    disk: LifeDisk,
    id: FileId,
    name: String,
}

impl LifeFile {
    fn write(&mut self, operation: DiskOperation, write: Write) -> Result<(), DiskError> {
        let state = &mut *self.disk.state(&self.name, operation)?;
        let failed = |reason| Err(DiskError::new(&self.name, operation, reason));
        if state.failing_writes > 0 {
            state.failing_writes -= 1;
            return failed(DiskReason::Other("a simulated failure".into()));
        }
        let (op, bytes) = (state.next_id(), state.bytes());
        let Some(file) = state.files.get_mut(&self.id) else { return failed(DiskReason::NotFound) };
        let grows = write.end().saturating_sub(file.bytes.len() as u64);
        if state.bytes_max.is_some_and(|max| grows > 0 && bytes + grows > max) {
            return failed(DiskReason::Full);
        }
        file.write(op, write);
        Ok(())
    }
}

impl DiskFile for LifeFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write(DiskOperation::Write, Write::Bytes { offset, bytes: bytes.to_vec() })
    }

    fn truncate(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.write(DiskOperation::Truncate, Write::Cut { bytes })
    }

    fn sync(&mut self) -> BoxFuture<Result<(), DiskError>> {
        let (disk, id, name, latency) = (self.disk.clone(), self.id, self.name.clone(), self.disk.latency());
        let upto = disk.state.0.lock().next_id;
        Box::pin(async move {
            if let Some(latency) = latency {
                latency.await;
            }
            let state = &mut *disk.state(&name, DiskOperation::Sync)?;
            let fails = state.sync_fails();
            if let Some(file) = state.files.get_mut(&id) {
                file.sync(upto, !fails);
            }
            if fails {
                let reason = DiskReason::Other("a simulated failure".into());
                return Err(DiskError::new(&name, DiskOperation::Sync, reason));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
