//! Which groups do not work, and what is left of them. Pure.

use std::collections::BTreeSet;
use std::fmt;

use rafted_value::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

use super::{Inspection, MemberReport};
use crate::cluster_state::{CLUSTER_GROUP, ClusterState, GroupState};
use crate::group_name::GroupName;

/// A group without a leader, and what its members say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaderlessGroup {
    /// Its name; `None` for the cluster's own group.
    pub name: Option<GroupName>,
    /// Its id.
    pub group: GroupId,
    /// What the members that answer say.
    pub members: Vec<MemberReport>,
    /// Nodes with further members of it, as far as those know, that do not answer or have none any more.
    pub silent: Vec<NodeId>,
}

impl Inspection {
    /// The groups in use that nobody leads, the cluster's own first.
    pub(crate) fn leaderless(&self, state: &ClusterState) -> Vec<LeaderlessGroup> {
        let running = state.groups().iter().filter(|(_, entry)| entry.state == GroupState::Running);
        let named = running.map(|(name, entry)| (entry.id, Some(name.clone())));
        let all = [(CLUSTER_GROUP, None)].into_iter().chain(named);
        let leaderless = all.filter(|(group, _)| self.leader(*group).is_none());
        leaderless.map(|(group, name)| self.describe(group, name)).collect()
    }

    fn describe(&self, group: GroupId, name: Option<GroupName>) -> LeaderlessGroup {
        let members = self.of(group).to_vec();
        let answering: BTreeSet<NodeId> = members.iter().map(|report| report.node).collect();
        let known: BTreeSet<NodeId> =
            members.iter().flat_map(|report| &report.members).map(|member| member.node).collect();
        LeaderlessGroup { name, group, members, silent: known.difference(&answering).copied().collect() }
    }
}

impl fmt::Display for LeaderlessGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "group {name:?}")?,
            None => f.write_str("the cluster's own group")?,
        }
        let answering: Vec<NodeId> = self.members.iter().map(|report| report.node).collect();
        write!(f, " has no leader: members on {answering:?} answer, those on {:?} do not", self.silent)?;
        for report in &self.members {
            if let Some(fenced) = &report.fenced {
                write!(f, "; the one on {} is fenced: {fenced}", report.node)?;
            }
        }
        Ok(())
    }
}
