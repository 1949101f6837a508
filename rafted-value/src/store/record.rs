//! What the log holds: one record for each thing that a member must not forget.
//!
//! Records are postcard. Released variants are frozen; a change is a new variant at the end, and a new version of the
//! batch if older programs must not skip it.

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, MemberId};
use crate::message::WireEntry;

/// What a member has promised: Raft's hard state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    pub(crate) term: u64,
    /// The member voted for in this term; 0 for none.
    pub(crate) vote: u64,
    pub(crate) commit: u64,
}

/// The place of an entry in a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) term: u64,
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
    Append { group: GroupId, member: MemberId, vote: Option<VoteRecord>, entries: Vec<WireEntry> },
    /// A member as a whole: whatever was written of its group before is void. Also how a group is written anew.
    Base {
        group: GroupId,
        member: MemberId,
        /// `None` for a member that has nothing yet.
        snapshot: Option<SnapshotMeta>,
        vote: VoteRecord,
        /// The entry before the first of `entries`.
        before: Place,
        entries: Vec<WireEntry>,
        /// How durable the group is to be; the host's encoding.
        durability: u8,
    },
    /// Entries up to `before` are dropped, since `snapshot`, whose file is durable, has them.
    Compacted {
        group: GroupId,
        member: MemberId,
        snapshot: SnapshotMeta,
        before: Place,
        vote: VoteRecord,
        durability: u8,
    },
    /// The members, forced from outside when the entries up to `applied` were applied; void once a snapshot after
    /// `applied`, or a [`Base`](Record::Base), has them.
    Membership {
        group: GroupId,
        member: MemberId,
        voters: Vec<MemberId>,
        learners: Vec<MemberId>,
        applied: u64,
    },
    /// No member of the group up to `newest` may ever come back on this node.
    Ended { group: GroupId, newest: MemberId },
}

impl Record {
    /// The group it is about.
    pub(crate) fn group(&self) -> GroupId {
        match self {
            Record::Append { group, .. }
            | Record::Base { group, .. }
            | Record::Compacted { group, .. }
            | Record::Membership { group, .. }
            | Record::Ended { group, .. } => *group,
        }
    }

    /// The member it is about.
    pub(crate) fn member(&self) -> MemberId {
        match self {
            Record::Append { member, .. }
            | Record::Base { member, .. }
            | Record::Compacted { member, .. }
            | Record::Membership { member, .. } => *member,
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
        let vote = VoteRecord { term: 7, vote: 2, commit: 4 };
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
        let records = vec![
            Record::Append { group, member, vote: Some(vote), entries: vec![entry.clone()] },
            Record::Base {
                group,
                member,
                snapshot: Some(snapshot.clone()),
                vote,
                before,
                entries: vec![entry],
                durability: 2,
            },
            Record::Compacted { group, member, snapshot, before, vote, durability: 1 },
            Record::Membership { group, member, voters, learners, applied: 5 },
            Record::Ended { group, newest: member },
        ];
        let golden: &[u8] = &[
            5, // records
            0, 172, 2, 2, 1, 7, 2, 4, 1, 7, 5, 0, 2, 97, 98, // append
            1, 172, 2, 2, 1, 4, 6, 2, 1, 2, 1, 3, 200, 1, 132, 134, 136, 8, 7, 2, 4, 4, 6, 1, 7, 5, 0, 2, 97,
            98, 2, // base
            2, 172, 2, 2, 4, 6, 2, 1, 2, 1, 3, 200, 1, 132, 134, 136, 8, 4, 6, 7, 2, 4, 1, // compacted
            3, 172, 2, 2, 2, 1, 2, 1, 3, 5, // membership
            4, 172, 2, 2, // ended
        ];
        assert_eq!(postcard::to_stdvec(&records).unwrap(), golden);
        assert_eq!(postcard::from_bytes::<Vec<Record>>(golden).unwrap(), records);
    }
}
