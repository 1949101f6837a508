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
    /// For how long the lease would last if no further round were acknowledged, in ms; `None` without a lease.
    pub lease_left_ms: Option<u64>,
    /// For how long this member helps nobody to be elected, in ms; 0 if it has promised nothing.
    pub promise_left_ms: u64,
    /// The nodes of other members that the leader has not heard of within an election timeout; empty where it does not
    /// lead.
    pub unresponsive: Vec<NodeId>,
    /// To whom the leadership is on its way, if this member is about to hand it over.
    pub transfer_to: Option<MemberId>,
    /// Whether this member leads, and a change of the members or the settings is under way.
    pub change_under_way: bool,
    /// Commands and queries that wait for this member.
    pub waiting: u64,
    /// Whether the group is quiet here: this member neither beats nor ticks until something is asked of it, or is in
    /// doubt ([`HostConfig::quiet_after`](crate::HostConfig::quiet_after)). A quiet leader has no lease once its last
    /// round is old.
    pub quiet: bool,
    /// The length of the newest snapshot's state in bytes, wherever it is.
    pub snapshot_bytes: u64,
    /// Bytes of states that this member holds encoded in memory beside its value: the newest snapshot where it is in no
    /// file, what it gives to others or is given, and what it was built anew from after a panic.
    pub snapshot_held_bytes: u64,
}

impl GroupStatus {
    /// What can be said of a member that failed.
    pub(crate) fn fenced(group: GroupId, member: MemberId, term: u64, reason: String) -> Self {
        Self {
            group,
            data: String::new(),
            member,
            role: Role::Follower,
            term,
            leader: None,
            ready: false,
            leased: false,
            members: Vec::new(),
            commit_index: 0,
            applied_index: 0,
            last_index: 0,
            snapshot_index: 0,
            log_bytes: 0,
            session_replies: 0,
            config: GroupConfig::default(),
            durability: Durability::Memory,
            fenced: Some(reason),
            lease_left_ms: None,
            promise_left_ms: 0,
            unresponsive: Vec::new(),
            transfer_to: None,
            change_under_way: false,
            waiting: 0,
            quiet: false,
            snapshot_bytes: 0,
            snapshot_held_bytes: 0,
        }
    }
}
