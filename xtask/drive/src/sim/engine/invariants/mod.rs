//! What must hold at every instant, whatever breaks: one file each. That members never diverge is watched by
//! [`Witness`](super::witness::Witness), what clients are told by [`history`](crate::sim::history).

mod equal_membership;
mod indices_never_go_back;
mod nothing_fenced;
mod one_leader_a_term;
mod one_lease;

use std::sync::Arc;

use rafted_value::{GroupStatus, NodeId};

use self::equal_membership::EqualMembership;
use self::indices_never_go_back::IndicesNeverGoBack;
use self::nothing_fenced::nothing_fenced;
use self::one_leader_a_term::OneLeaderATerm;
use self::one_lease::one_lease;

/// One member as it said of itself at one instant.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) node: NodeId,
    pub(super) status: GroupStatus,
}

/// All invariants over what members say of themselves.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    leaders: OneLeaderATerm,
    indices: IndicesNeverGoBack,
    membership: EqualMembership,
}

impl Invariants {
    /// Takes in what all members that can speak said at one instant.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, with what contradicts it.
    pub(super) fn observe(&mut self, sightings: &[Arc<Sighting>]) -> Result<(), String> {
        for sighting in sightings {
            nothing_fenced(sighting)?;
            self.leaders.observe(sighting)?;
            self.indices.observe(sighting)?;
            self.membership.observe(sighting)?;
        }
        one_lease(sightings.iter().map(AsRef::as_ref))
    }

    /// A node has come back from its disk: it reads entries again that it had applied, and what it said of terms and
    /// commits before they were on the disk it may not know.
    pub(super) fn forget_indices(&mut self) {
        self.indices = IndicesNeverGoBack::default();
    }

    /// How many leaders there were beyond the first of each group.
    pub(super) fn leader_changes(&self) -> u64 {
        self.leaders.changes()
    }
}

#[cfg(test)]
pub(super) fn sighting(node: u64, member: u64) -> Sighting {
    Sighting { node: NodeId(node), status: status(member) }
}

/// A follower of group 1 that has nothing to say.
#[cfg(test)]
pub(in crate::sim) fn status(member: u64) -> GroupStatus {
    use rafted_value::{GroupConfig, GroupId, MemberId, Role};
    GroupStatus {
        group: GroupId(1),
        data: "lists-1".into(),
        member: MemberId(member),
        role: Role::Follower,
        term: 1,
        leader: None,
        ready: false,
        leased: false,
        members: Vec::new(),
        commit_index: 1,
        applied_index: 1,
        last_index: 1,
        snapshot_index: 1,
        log_bytes: 0,
        session_replies: 0,
        config: GroupConfig::default(),
        durability: rafted_value::Durability::Memory,
        fenced: None,
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
