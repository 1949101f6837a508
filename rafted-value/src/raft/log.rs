//! The log of one member in memory, as raft reads it: a snapshot and the entries that follow some point at or before it.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::store::{KeptFile, StoreError};

/// A member's snapshot, log and vote.
///
/// The snapshot is never older than the entries dropped from the front, so that whoever lacks a dropped entry can be
/// given the snapshot. The snapshot's state is in memory or in a file; raft, which never looks at it, is given an empty one
/// in place of one in a file.
#[derive(Debug, Default)]
pub(crate) struct MemberLog {
    hard_state: HardState,
    snapshot: Snapshot,
    /// Where the snapshot's state is, if not in memory.
    file: Option<Box<KeptFile>>,
    /// That file cannot be read: nobody is given it, and a new snapshot must be taken.
    damaged: bool,
    /// Index and term of the entry before the first one kept.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: u64,
    /// Bytes appended since the snapshot.
    bytes_since_snapshot: u64,
    /// raft asked for a snapshot newer than ours.
    wanted: std::cell::Cell<bool>,
    /// With the next snapshot everything goes that is in it, whoever lacks it.
    shrinks: std::cell::Cell<bool>,
}

impl MemberLog {
    /// A log that starts at `snapshot`, with no entries; the default snapshot for a member that has nothing yet.
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let mut log = Self::default();
        log.hard_state.term = snapshot.get_metadata().term;
        log.hard_state.commit = snapshot.get_metadata().index;
        log.before = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        log.snapshot = snapshot;
        log
    }

    /// A log as it was read from the disk: a snapshot, the vote, and the entries that follow `before`.
    pub(crate) fn recovered(
        snapshot: Snapshot,
        file: Option<KeptFile>,
        hard_state: HardState,
        before: (u64, u64),
        entries: &[Entry],
    ) -> Self {
        let mut log = Self { hard_state, snapshot, file: file.map(Box::new), before, ..Self::default() };
        log.append(entries);
        let (index, before) = (log.snapshot_index(), log.before.0);
        assert!(
            before <= index && index <= log.last().max(before),
            "the log ends at {} before its snapshot at {index}",
            log.last()
        );
        log
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    /// The snapshot, with its state unless that is in a [`file`](Self::file).
    pub(crate) fn snapshot_ref(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The file that has the snapshot's state, where that is not in memory.
    pub(crate) fn file(&self) -> Option<&KeptFile> {
        self.file.as_deref()
    }

    /// The length of the snapshot's state, wherever it is.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.file().map_or(self.snapshot.data.len() as u64, |file| file.meta().bytes)
    }

    /// The snapshot's state, which is read from its file if it has one; that blocks the thread.
    pub(crate) fn load_state(&self) -> Result<Bytes, StoreError> {
        self.file().map_or_else(|| Ok(self.snapshot.data.clone()), KeptFile::load)
    }

    /// The snapshot's state is durable in a file, and memory can do without it.
    pub(crate) fn leave_state_to(&mut self, file: KeptFile) {
        assert_eq!(file.meta().index, self.snapshot_index(), "the file has another snapshot");
        self.snapshot.data = Bytes::new();
        self.file = Some(Box::new(file));
    }

    /// The snapshot's file cannot be read.
    pub(crate) fn mark_damaged(&mut self) {
        self.damaged = self.file.is_some();
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged
    }

    pub(crate) fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes appended since the snapshot was taken, however much is kept from before it.
    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot
    }

    /// Whether raft asked for a newer snapshot since the last call.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.replace(false)
    }

    /// Has a snapshot taken as soon as one can be, and no entry kept behind it: those that lack some are given the snapshot.
    pub(crate) fn shrink(&self) {
        self.wanted.set(true);
        self.shrinks.set(true);
    }

    /// Whether no entry is kept behind the next snapshot; of this one only.
    pub(crate) fn take_shrinks(&self) -> bool {
        self.shrinks.replace(false)
    }

    /// Appends entries, replacing what conflicts.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.before.0, "entry {} would replace what was compacted", first.index);
        assert!(first.index <= self.last() + 1, "entry {} leaves a gap after {}", first.index, self.last());
        while self.last() >= first.index {
            let dropped = self.entries.pop_back().expect("entries reach up to last()");
            self.bytes -= size(&dropped);
            self.bytes_since_snapshot = self.bytes_since_snapshot.saturating_sub(size(&dropped));
        }
        for entry in entries {
            self.bytes += size(entry);
            self.bytes_since_snapshot += size(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Starts over from a snapshot that came from the leader.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let metadata = snapshot.get_metadata();
        self.before = (metadata.index, metadata.term);
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.hard_state.term = self.hard_state.term.max(metadata.term);
        self.entries.clear();
        (self.bytes, self.bytes_since_snapshot) = (0, 0);
        (self.snapshot, self.file, self.damaged) = (snapshot, None, false);
    }

    /// Keeps a newer snapshot of our own, whose state may be in a file, and drops entries up to `drop_to` at the most
    /// (never beyond the snapshot).
    pub(crate) fn compact(&mut self, snapshot: Snapshot, file: Option<KeptFile>, drop_to: u64) {
        assert!(snapshot.get_metadata().index >= self.snapshot_index(), "a snapshot older than the last");
        debug_assert!(file.is_none() || snapshot.data.is_empty(), "its state is in memory and in a file");
        let drop_to = drop_to.min(snapshot.get_metadata().index);
        (self.snapshot, self.file, self.damaged) = (snapshot, file.map(Box::new), false);
        let index = self.snapshot_index();
        self.bytes_since_snapshot =
            self.entries.iter().rev().take_while(|entry| entry.index > index).map(size).sum();
        while self.entries.front().is_some_and(|entry| entry.index <= drop_to) {
            let entry = self.entries.pop_front().expect("there is a front");
            self.bytes -= size(&entry);
            self.before = (entry.index, entry.term);
        }
    }

    /// Gives back room for entries that are not there.
    pub(crate) fn trim(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// Index and term of the entry before the first one kept.
    pub(crate) fn before(&self) -> (u64, u64) {
        self.before
    }

    /// All entries that are kept.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The entries in `from..=to`, all of which are kept.
    pub(crate) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = &Entry> {
        let first = self.before.0 + 1;
        assert!(from >= first && to <= self.last(), "entries {from} to {to} are not all kept");
        self.entries.range((from - first) as usize..(to + 1 - first) as usize)
    }

    /// The first index of which there is an entry, or would be.
    pub(crate) fn first(&self) -> u64 {
        self.before.0 + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(index.checked_sub(self.before.0 + 1)? as usize)
    }
}

fn size(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + std::mem::size_of::<Entry>()) as u64
}

impl Storage for MemberLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.hard_state.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "entries up to {high} asked of a log that ends at {}", self.last());
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut out = Vec::new();
        for index in low..high {
            let entry = self.get(index).expect("the range is inside the log");
            bytes += size(entry);
            if bytes > limit && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index < self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        self.get(index).map(|entry| entry.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// raft refuses a snapshot whose membership does not name its receiver, so a new member needs a new one.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        if self.damaged {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let conf = self.snapshot.get_metadata().get_conf_state();
        let named = conf.voters.contains(&to) || conf.learners.contains(&to);
        if !named || self.snapshot_index() < request_index.max(1) {
            self.wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(terms: &[u64], first: u64) -> Vec<Entry> {
        let entry = |(i, &term): (usize, &u64)| Entry { index: first + i as u64, term, ..Entry::default() };
        terms.iter().enumerate().map(entry).collect()
    }

    fn snapshot(index: u64, term: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = index;
        snapshot.mut_metadata().term = term;
        snapshot
    }

    /// FAULTS 9: after a conflict, the end of the stale tail was kept as the last index.
    #[test]
    fn a_conflicting_append_cuts_the_whole_stale_tail() {
        let mut log = MemberLog::new(snapshot(1, 1));
        log.append(&entries(&[1, 1, 1, 1], 2));
        log.append(&entries(&[2], 3));
        assert_eq!(log.last(), 3);
        assert_eq!((log.term(2).unwrap(), log.term(3).unwrap()), (1, 2));
        assert_eq!(log.bytes(), 2 * size(&Entry::default()));
    }

    #[test]
    fn compaction_keeps_the_term_before_the_first_entry() {
        let mut log = MemberLog::new(snapshot(1, 1));
        log.append(&entries(&[1, 2, 2, 3], 2));
        log.compact(snapshot(4, 2), None, 3);
        assert_eq!((log.first_index().unwrap(), log.last()), (4, 5));
        assert_eq!(log.term(3).unwrap(), 2);
        assert!(log.term(2).is_err());
        assert_eq!(log.range(5, 5).count(), 1);
    }

    /// A snapshot that takes long is of a state that the log has left behind when it is there.
    #[test]
    fn what_came_after_a_snapshot_counts_towards_the_next() {
        let mut log = MemberLog::new(snapshot(1, 1));
        log.append(&entries(&[1, 2, 2, 3], 2));
        log.compact(snapshot(3, 2), None, 3);
        assert_eq!(log.bytes_since_snapshot(), 2 * size(&Entry::default()));
    }

    #[test]
    fn a_snapshot_from_the_leader_replaces_the_log() {
        let mut log = MemberLog::new(snapshot(1, 1));
        log.append(&entries(&[1, 1], 2));
        log.restore(snapshot(10, 4));
        assert_eq!((log.first_index().unwrap(), log.last(), log.bytes()), (11, 10, 0));
        assert_eq!(log.term(10).unwrap(), 4);
    }
}
