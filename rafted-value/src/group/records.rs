//! The records that tell the disk of a member.

use raft::eraftpb::{Entry, EntryType};

use super::keep::Stage;
use super::{Group, Turn};
use crate::config::{Durability, HostConfig};
use crate::fenced::fits_one_record;
use crate::outputs::Ack;
use crate::raft::convert::{entry_to_wire, snapshot_to_wire};
use crate::store::{KeptSnapshot, Place, Record, VoteRecord};

/// How many bytes of entries go into one record: far fewer than it may have, as what is around them counts as well.
fn record_bytes(turn: &Turn<'_>) -> u64 {
    turn.limits.store.record_bytes_max as u64 / 2
}

/// Entries in parts of no more bytes than that, unless one alone has more; one part where there are none.
fn parts(entries: &[Entry], bytes_max: u64) -> impl Iterator<Item = &[Entry]> {
    let mut rest = Some(entries);
    std::iter::from_fn(move || {
        let left = rest.take()?;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.data.len() as u64 + entry.context.len() as u64;
            bytes <= bytes_max
        };
        let count = left.iter().take_while(fits).count().max(1).min(left.len());
        let (part, behind) = left.split_at(count);
        rest = (!behind.is_empty()).then_some(behind);
        Some(part)
    })
}

impl Group {
    /// Writes the record that all older ones of this member are void with.
    pub(super) fn write_beginning(&mut self, turn: &mut Turn<'_>) {
        let record = self.beginning();
        let number = self.keeper.on_their_way.back().map_or(0, |last| last.number);
        let (term, promise_ms) = (self.raw.store().hard_state().term, self.keeper.promise_ms);
        self.keeper.stage = Stage::Beginning { number, term, promise_ms };
        self.keeper.promise_grew = false;
        let ack = Ack { group: self.id, member: self.member, number, sync: true, begins: true };
        turn.out.keep(record, Some(ack));
    }

    /// Everything that the disk must know of this member, in one record.
    pub(super) fn beginning(&self) -> Record {
        let memory = self.keeper.level == Durability::Memory;
        let (log, snapshot) = (self.raw.store(), self.kept_snapshot());
        let entries = if memory { Vec::new() } else { log.all().cloned().map(entry_to_wire).collect() };
        // A member in memory has no place in the log but its own record.
        let before = if memory { Place::default() } else { Place::of(log.before()) };
        Record::Base {
            group: self.id,
            member: self.member,
            durability: self.keeper.level,
            snapshot,
            vote: self.vote_record(),
            before,
            entries,
        }
    }

    /// Where the disk has the snapshot, once it has the record that says so.
    pub(super) fn kept_snapshot(&self) -> KeptSnapshot {
        let log = self.raw.store();
        match log.file() {
            Some(file) => KeptSnapshot::File(file.meta().clone()),
            // A member in memory only has to be remembered, so that it never comes back.
            None if self.keeper.level == Durability::Memory => KeptSnapshot::Nothing,
            None => KeptSnapshot::Inline(snapshot_to_wire(log.snapshot_ref().clone())),
        }
    }

    pub(super) fn vote_record(&self) -> VoteRecord {
        let state = self.raw.store().hard_state();
        VoteRecord {
            term: state.term,
            vote: state.vote,
            commit: state.commit,
            promise_ms: self.keeper.promise_ms,
        }
    }

    /// Writes down the newest vote, term, promise and commit, with these entries.
    pub(super) fn write_append(&mut self, turn: &mut Turn<'_>, number: u64, entries: &[Entry]) {
        let changes = entries.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal);
        let term_is_new = self.raw.store().hard_state().term != self.keeper.kept_term;
        let sync = self.keeper.level == Durability::Fsync
            || changes
            || term_is_new
            || self.keeper.promise_grew
            || entries.is_empty();
        self.keeper.promise_grew = false;
        let ack = Ack { group: self.id, member: self.member, number, sync, begins: false };
        let mut parts = parts(entries, record_bytes(turn)).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let mut vote = self.vote_record();
            if let Some(entry) = part.last().filter(|_| !last) {
                // Should the rest not come to the disk, it must not know of a commit that its log does not reach.
                vote.commit = vote.commit.min(entry.index);
            }
            let entries = part.iter().cloned().map(entry_to_wire).collect();
            let record = Record::Append { group: self.id, member: self.member, vote, entries };
            turn.out.keep(record, last.then_some(ack));
        }
    }

    /// All that the disk must know of this member in one record, where it fits into one and the disk knows it at all.
    pub(crate) fn all_records(&self, limits: &HostConfig) -> Option<Record> {
        // A member in memory has no entries in it.
        let fits = self.keeper.level == Durability::Memory
            || fits_one_record(self.raw.store().bytes(), limits.store.record_bytes_max);
        (self.keeper.stage == Stage::Begun && fits).then(|| self.beginning())
    }

    /// Writes all of this member anew, so that the log can do without its older parts.
    pub(crate) fn rewrite(&mut self, turn: &mut Turn<'_>) {
        if self.keeper.stage != Stage::Begun {
            return;
        }
        match self.all_records(turn.limits) {
            Some(record) => turn.out.keep(record, None),
            // One record must hold all of it, and would be refused. The log asks again once it is smaller.
            None => self.shrink(turn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[usize]) -> Vec<Entry> {
        let entry = |bytes: &usize| Entry { data: vec![0; *bytes].into(), ..Entry::default() };
        bytes.iter().map(entry).collect()
    }

    /// What a member got in one turn was once one record, which the log refuses where it is too large: the member was fenced.
    #[test]
    fn entries_go_into_as_few_records_as_they_fit_into() {
        let parts_of =
            |bytes: &[usize]| -> Vec<usize> { parts(&entries(bytes), 100).map(<[Entry]>::len).collect() };
        assert_eq!(parts_of(&[]), [0], "a vote is a record without entries");
        assert_eq!(parts_of(&[100]), [1]);
        assert_eq!(parts_of(&[50, 50, 1]), [2, 1]);
        assert_eq!(parts_of(&[200, 1, 200, 200]), [1, 1, 1, 1], "one that is too large alone goes alone");
        assert_eq!(parts_of(&[40; 10]), [2; 5]);
    }
}
