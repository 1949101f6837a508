//! What a member says of itself; plain values that an operator page can draw.

use serde::{Deserialize, Serialize};

use crate::config::{Durability, GroupConfig};
use crate::id::{GroupId, MemberId, NodeId};

/// What a member is in its group at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Replicates what the leader says, and votes unless it is a learner.
    Follower,
    /// Asks for votes, or asks whether it would get them.
    Candidate,
    /// Orders the commands.
    Leader,
}

/// One member as the group's membership lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The member.
    pub member: MemberId,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes; a learner only receives.
    pub voter: bool,
    /// The last index that it is known to hold; only the leader knows.
    pub matched: Option<u64>,
    /// Whether the leader has heard of it within an election timeout; only the leader knows.
    pub responsive: Option<bool>,
}

/// One member's view of its group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The name of its data type; empty while the member has no state yet.
    pub data: String,
    /// This member.
    pub member: MemberId,
    /// What it is at the moment.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// The node of the leader, where known.
    pub leader: Option<NodeId>,
    /// Whether it is a leader that has applied an entry of its own term, and so serves.
    pub ready: bool,
    /// Whether it is a leader under a lease at the moment.
    pub leased: bool,
    /// All members, this one included.
    pub members: Vec<MemberStatus>,
    /// The highest index known to be committed.
    pub commit_index: u64,
    /// The highest index applied to the value.
    pub applied_index: u64,
    /// The last index in the log.
    pub last_index: u64,
    /// The index of the newest snapshot.
    pub snapshot_index: u64,
    /// Bytes of the log entries in memory.
    pub log_bytes: u64,
    /// Replies kept for clients.
    pub session_replies: u64,
    /// The settings.
    pub config: GroupConfig,
    /// What of this member is kept on its node's disk.
    pub durability: Durability,
    /// Why the group does not work on this node, if it does not.
    pub fenced: Option<String>,
}
