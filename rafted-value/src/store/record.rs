//! What the log holds: one record for each thing that a member must not forget.
//!
//! Records are postcard. Released variants are frozen; a change is a new variant at the end, and a new version of the
//! batch if older programs must not skip it.

use serde::{Deserialize, Serialize};

use crate::config::Durability;
use crate::id::{GroupId, MemberId};
use crate::message::{WireEntry, WireSnapshot};

/// What a member has promised: Raft's hard state, and to its leaders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    pub(crate) term: u64,
    /// The member voted for in this term; 0 for none.
    pub(crate) vote: u64,
    pub(crate) commit: u64,
    /// The longest promise to a leader that the member may have made, in ms.
    pub(crate) promise_ms: u32,
}

/// The place of an entry in a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// Where a member's snapshot is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum KeptSnapshot {
    /// The member has none: it lives in memory, and only has to be remembered.
    Nothing,
    /// In the record itself, where it is small: thousands of small groups need no file each.
    Inline(WireSnapshot),
    /// In a file of its own.
    File(SnapshotMeta),
}

impl KeptSnapshot {
    /// How many bytes of it are in the record.
    pub(crate) fn inline_bytes(&self) -> u64 {
        match self {
            KeptSnapshot::Inline(snapshot) => snapshot.state.len() as u64,
            KeptSnapshot::Nothing | KeptSnapshot::File(_) => 0,
        }
    }

    /// The index of the newest entry that is in it.
    pub(crate) fn index(&self) -> u64 {
        self.newest().1
    }

    /// The term and the index of that entry.
    pub(crate) fn newest(&self) -> (u64, u64) {
        match self {
            KeptSnapshot::Nothing => (0, 0),
            KeptSnapshot::Inline(snapshot) => (snapshot.term, snapshot.index),
            KeptSnapshot::File(meta) => (meta.term, meta.index),
        }
    }
}

/// What a snapshot is of; its bytes are in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotMeta {
    /// The newest entry that is in it.
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) voters: Vec<MemberId>,
    pub(crate) learners: Vec<MemberId>,
    /// The length of the state.
    pub(crate) bytes: u64,
    /// CRC-32C of the state.
    pub(crate) crc: u32,
}

/// One thing to remember about one member of one group.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// Entries, the first of which replaces what was there at its index and after it.
    Append { group: GroupId, member: MemberId, vote: VoteRecord, entries: Vec<WireEntry> },
    /// A member as a whole: whatever was written of its group before is void. Also how a group is written anew.
    Base {
        group: GroupId,
        member: MemberId,
        snapshot: KeptSnapshot,
        vote: VoteRecord,
        /// The entry before the first of `entries`.
        before: Place,
        entries: Vec<WireEntry>,
        durability: Durability,
    },
    /// Entries up to `before` are dropped, since `snapshot`, whose file is durable, has them.
    Compacted {
        group: GroupId,
        member: MemberId,
        snapshot: KeptSnapshot,
        before: Place,
        vote: VoteRecord,
        durability: Durability,
    },
    /// No member of the group up to `newest` may ever come back on this node.
    Ended { group: GroupId, newest: MemberId },
}

impl Place {
    /// The place of the entry with this index and term.
    pub(crate) fn of((index, term): (u64, u64)) -> Self {
        Self { index, term }
    }
}

impl Record {
    /// The group it is about.
    pub(crate) fn group(&self) -> GroupId {
        match self {
            Record::Append { group, .. }
            | Record::Base { group, .. }
            | Record::Compacted { group, .. }
            | Record::Ended { group, .. } => *group,
        }
    }

    /// The member it is about.
    pub(crate) fn member(&self) -> MemberId {
        match self {
            Record::Append { member, .. }
            | Record::Base { member, .. }
            | Record::Compacted { member, .. } => *member,
            Record::Ended { newest, .. } => *newest,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::WireEntryBody;

    #[test]
    fn records_have_these_golden_bytes() {
        let (group, member) = (GroupId(300), MemberId(2));
        let vote = VoteRecord { term: 7, vote: 2, commit: 4, promise_ms: 200 };
        let entry = WireEntry { term: 7, index: 5, body: WireEntryBody::Normal(Bytes::from_static(b"ab")) };
        let (voters, learners) = (vec![MemberId(1), MemberId(2)], vec![MemberId(3)]);
        let snapshot = SnapshotMeta {
            index: 4,
            term: 6,
            voters: voters.clone(),
            learners: learners.clone(),
            bytes: 200,
            crc: 0x0102_0304,
        };
        let before = Place { index: 4, term: 6 };
        let state = Bytes::from_static(b"s");
        let inline = WireSnapshot { index: 4, term: 6, voters: vec![member], learners: vec![], state };
        let records = vec![
            Record::Append { group, member, vote, entries: vec![entry.clone()] },
            Record::Base {
                group,
                member,
                snapshot: KeptSnapshot::File(snapshot),
                vote,
                before,
                entries: vec![entry],
                durability: Durability::Fsync,
            },
            Record::Compacted {
                group,
                member,
                snapshot: KeptSnapshot::Inline(inline),
                before,
                vote,
                durability: Durability::Async,
            },
            Record::Base {
                group,
                member,
                snapshot: KeptSnapshot::Nothing,
                vote,
                before: Place::default(),
                entries: vec![],
                durability: Durability::Memory,
            },
            Record::Ended { group, newest: member },
        ];
        let golden: &[u8] = &[
            5, // records
            0, 172, 2, 2, 7, 2, 4, 200, 1, 1, 7, 5, 0, 2, 97, 98, // append
            1, 172, 2, 2, 2, 4, 6, 2, 1, 2, 1, 3, 200, 1, 132, 134, 136, 8, 7, 2, 4, 200, 1, 4, 6, 1, 7, 5,
            0, 2, 97, 98, 2, // base
            2, 172, 2, 2, 1, 4, 6, 1, 2, 0, 1, 115, 4, 6, 7, 2, 4, 200, 1, 1, // compacted
            1, 172, 2, 2, 0, 7, 2, 4, 200, 1, 0, 0, 0, 0, // base of a member in memory
            3, 172, 2, 2, // ended
        ];
        assert_eq!(postcard::to_stdvec(&records).unwrap(), golden);
        assert_eq!(postcard::from_bytes::<Vec<Record>>(golden).unwrap(), records);
    }
}
