//! Which groups do not work, and what is left of them. Pure.

use std::collections::BTreeSet;
use std::fmt;

use rafted_value::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

use super::{Inspection, MemberReport, in_use, write_group};
use crate::cluster_state::ClusterState;
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
        let leaderless = in_use(state).filter(|(group, _)| self.leader(*group).is_none());
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
        write_group(f, self.name.as_ref())?;
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
