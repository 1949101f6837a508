//! What a log says about each group, folded record by record while it is read.

use std::collections::{BTreeMap, VecDeque};

use super::record::{Place, Record, SnapshotMeta, VoteRecord};
use crate::id::{GroupId, MemberId};
use crate::message::WireEntry;

/// One member as its log has it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct RecoveredGroup {
    pub(crate) member: MemberId,
    /// The newest snapshot that the log knows; `None` for a member that had nothing yet.
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) vote: VoteRecord,
    /// The entry before the first of `entries`.
    pub(crate) before: Place,
    /// In a row.
    pub(crate) entries: VecDeque<WireEntry>,
    /// Members forced from outside, unless the snapshot has them.
    pub(crate) forced: Option<ForcedMembers>,
    pub(crate) durability: u8,
}

/// Members forced from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ForcedMembers {
    pub(crate) voters: Vec<MemberId>,
    pub(crate) learners: Vec<MemberId>,
    /// The entry that was applied last when they were forced.
    pub(crate) applied: u64,
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
                let new =
                    RecoveredGroup { member, snapshot, vote, before, entries, forced: None, durability };
                self.groups.insert(group, new);
            }
            Record::Compacted { snapshot, before, vote, durability, .. } => {
                let group = self.group(group, member);
                if group.forced.as_ref().is_some_and(|forced| snapshot.index > forced.applied) {
                    group.forced = None;
                }
                while group.entries.front().is_some_and(|entry| entry.index <= before.index) {
                    group.entries.pop_front();
                }
                (group.vote, group.before, group.snapshot) = (vote, before, Some(snapshot));
                group.durability = durability;
            }
            Record::Membership { voters, learners, applied, .. } => {
                self.group(group, member).forced = Some(ForcedMembers { voters, learners, applied });
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
            snapshot: None,
            vote: VoteRecord::default(),
            before: Place::default(),
            entries: VecDeque::new(),
            forced: None,
            durability: 0,
        })
    }
}

impl RecoveredGroup {
    fn append(&mut self, vote: Option<VoteRecord>, entries: Vec<WireEntry>) {
        self.vote = vote.unwrap_or(self.vote);
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|entry| entry.index >= first.index) {
            self.entries.pop_back();
        }
        self.entries.extend(entries);
    }
}
