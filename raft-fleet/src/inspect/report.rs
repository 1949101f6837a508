//! What one member says of its group, in the form in which nodes tell each other.

use std::collections::BTreeSet;

use rafted_value::{GroupId, GroupStatus, MemberId, NodeId};
use serde::{Deserialize, Serialize};

use crate::adjust::serves;

/// What one member says of its group. Sent between nodes, so its shape is frozen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberReport {
    /// The node of the member.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// The member.
    pub member: MemberId,
    /// Whether it leads, and serves.
    pub leads: bool,
    /// The node that leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The term it is in.
    pub term: u64,
    /// The last index that it knows to be committed.
    pub commit_index: u64,
    /// The last index that it holds.
    pub last_index: u64,
    /// Why it does not work, if it does not.
    pub fenced: Option<String>,
    /// The members that it knows of, itself included.
    pub members: Vec<ReportedMember>,
}

/// A member as another one knows it. Sent between nodes, so its shape is frozen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedMember {
    /// The member.
    pub member: MemberId,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// The last index that it is known to hold; only the leader knows.
    pub matched: Option<u64>,
    /// Whether the leader has heard of it lately; only the leader knows.
    pub heard: Option<bool>,
}

impl MemberReport {
    pub(crate) fn new(node: NodeId, status: GroupStatus) -> Self {
        let leads = serves(&status);
        let members = status.members.into_iter().map(|member| ReportedMember {
            member: member.member,
            node: member.node,
            voter: member.voter,
            matched: member.matched,
            heard: member.responsive,
        });
        Self {
            node,
            group: status.group,
            member: status.member,
            leads,
            leader: status.leader,
            term: status.term,
            commit_index: status.commit_index,
            last_index: status.last_index,
            fenced: status.fenced,
            members: members.collect(),
        }
    }

    /// The voters that it knows of.
    pub(crate) fn voters(&self) -> impl Iterator<Item = &ReportedMember> {
        self.members.iter().filter(|member| member.voter)
    }

    /// Whether it leads, and has lately heard of a majority, those on `dead` nodes not counted: it may have heard of them
    /// just before they died.
    pub(crate) fn leads_a_majority_without(&self, dead: &BTreeSet<NodeId>) -> bool {
        let heard =
            self.voters().filter(|voter| voter.heard == Some(true) && !dead.contains(&voter.node)).count();
        self.leads && heard > self.voters().count() / 2
    }
}
