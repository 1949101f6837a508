//! What a log says about each group, folded record by record while it is read.

use std::collections::{BTreeMap, VecDeque};

use super::record::{KeptSnapshot, Place, Record, VoteRecord};
use crate::config::Durability;
use crate::id::{GroupId, MemberId};
use crate::message::WireEntry;

/// One member as its log has it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct RecoveredGroup {
    pub(crate) member: MemberId,
    /// The newest snapshot that the log knows.
    pub(crate) snapshot: KeptSnapshot,
    pub(crate) vote: VoteRecord,
    /// The entry before the first of `entries`.
    pub(crate) before: Place,
    /// In a row.
    pub(crate) entries: VecDeque<WireEntry>,
    pub(crate) durability: Durability,
}

/// All groups of a log.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) groups: BTreeMap<GroupId, RecoveredGroup>,
    /// The newest member of each group that may not come back.
    pub(super) ended: BTreeMap<GroupId, MemberId>,
}

impl Groups {
    /// Takes in a record that fits those before it, as the footprint has checked.
    pub(super) fn apply(&mut self, record: Record) {
        let (group, member) = (record.group(), record.member());
        match record {
            Record::Append { vote, entries, .. } => self.group(group, member).append(vote, entries),
            Record::Base { snapshot, vote, before, entries, durability, .. } => {
                let entries = entries.into();
                let new = RecoveredGroup { member, snapshot, vote, before, entries, durability };
                self.groups.insert(group, new);
            }
            Record::Compacted { snapshot, before, vote, durability, .. } => {
                let group = self.group(group, member);
                while group.entries.front().is_some_and(|entry| entry.index <= before.index) {
                    group.entries.pop_front();
                }
                (group.vote, group.before, group.snapshot) = (vote, before, snapshot);
                group.durability = durability;
            }
            Record::Ended { newest, .. } => {
                let ended = self.ended.entry(group).or_insert(newest);
                *ended = newest.max(*ended);
                if self.groups.get(&group).is_some_and(|group| group.member <= newest) {
                    self.groups.remove(&group);
                }
            }
        }
    }

    /// Checks that each group's entries are in a row, which only the end of the log can tell: see the footprint.
    ///
    /// # Errors
    ///
    /// Names the group and the gap.
    pub(super) fn check_rows(&self) -> Result<(), String> {
        for (id, group) in &self.groups {
            let mut last = group.before.index;
            for entry in &group.entries {
                if entry.index.checked_sub(1) != Some(last) {
                    return Err(format!("group {id} has entry {} after entry {last}", entry.index));
                }
                last = entry.index;
            }
        }
        Ok(())
    }

    /// The group, which may be one whose base comes later.
    fn group(&mut self, group: GroupId, member: MemberId) -> &mut RecoveredGroup {
        self.groups.entry(group).or_insert_with(|| RecoveredGroup {
            member,
            snapshot: KeptSnapshot::Nothing,
            vote: VoteRecord::default(),
            before: Place::default(),
            entries: VecDeque::new(),
            durability: Durability::Memory,
        })
    }
}

impl RecoveredGroup {
    fn append(&mut self, vote: VoteRecord, entries: Vec<WireEntry>) {
        self.vote = vote;
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|entry| entry.index >= first.index) {
            self.entries.pop_back();
        }
        self.entries.extend(entries);
    }
}
