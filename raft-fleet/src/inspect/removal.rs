//! How a group gets rid of members whose nodes will never come back, and what that may cost. Pure: a plan for a person to
//! read, before anything is done.

use std::collections::BTreeSet;
use std::fmt;

use rafted_value::{GroupId, MemberId, NodeId};
use serde::{Deserialize, Serialize};

use super::{Inspection, MemberReport, in_use, write_group};
use crate::cluster_state::{ClusterState, GroupState};
use crate::group_name::GroupName;

/// What it takes to go on without some nodes, group by group, the cluster's own first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemovalPlan {
    /// The nodes that are given up.
    pub nodes: Vec<NodeId>,
    /// The groups that have members there.
    pub groups: Vec<GroupRemoval>,
}

/// What it takes to go on without some nodes in one group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupRemoval {
    /// The name of the group; `None` for the cluster's own.
    pub name: Option<GroupName>,
    /// The group.
    pub group: GroupId,
    /// The members that are given up.
    pub members: Vec<MemberId>,
    /// How.
    pub how: Removal,
}

/// How members are given up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Removal {
    /// The group has a leader, which replaces them in the usual way once their nodes are listed no more. Nothing is lost.
    ByLeader {
        /// Where the group is led.
        leader: NodeId,
    },
    /// The group has lost its majority: those that are left forget the others, and go on with what the newest of them
    /// holds. A command that was acknowledged, and that only lost members held, is lost.
    ByForce {
        /// The nodes of the members that are left.
        survivors: Vec<NodeId>,
        /// How many voters the group had.
        voters: u64,
        /// The last index that any of those that are left holds.
        newest_index: u64,
        /// The nodes of voters that are neither left nor given up: they are silent too, and the group may have no leader
        /// until they come back or are given up as well.
        still_silent: Vec<NodeId>,
    },
    /// The group has a majority left, and no leader yet: it will have one soon, which does the same. Force would only cost
    /// what it need not.
    NotYet {
        /// How many of its voters answer.
        answering: u64,
        /// How many voters it has.
        voters: u64,
    },
    /// Nobody who answers has a member: nothing can be done, and nothing is. What the group held is on the lost nodes
    /// alone.
    Nobody,
}

impl RemovalPlan {
    /// The groups that may lose commands that were acknowledged.
    pub fn lossy(&self) -> impl Iterator<Item = &GroupRemoval> {
        let safe = |how: &Removal| matches!(how, Removal::ByLeader { .. } | Removal::NotYet { .. });
        self.groups.iter().filter(move |removal| !safe(&removal.how))
    }
}

impl Inspection {
    /// What it takes to go on without these nodes.
    pub(crate) fn plan_removal(&self, state: &ClusterState, nodes: &BTreeSet<NodeId>) -> RemovalPlan {
        // What a node that came back without a leader knows of the cluster may be a change behind: a group that is being
        // founded there may be in use. Where it is not, nobody misses what it forgets.
        let survives = |group| self.of(group).iter().any(|report| !nodes.contains(&report.node));
        let founding = state.groups().iter().filter(|(_, entry)| entry.state != GroupState::Running);
        let founding = founding.map(|(name, entry)| (entry.id, Some(name.clone())));
        let groups = in_use(state).chain(founding.filter(|(group, _)| survives(*group)));
        let groups = groups.filter_map(|(group, name)| self.plan_group(group, name, nodes));
        RemovalPlan { nodes: nodes.iter().copied().collect(), groups: groups.collect() }
    }

    fn plan_group(
        &self,
        group: GroupId,
        name: Option<GroupName>,
        nodes: &BTreeSet<NodeId>,
    ) -> Option<GroupRemoval> {
        let survivors: Vec<&MemberReport> =
            self.of(group).iter().filter(|report| !nodes.contains(&report.node)).collect();
        let leader = self.leader_without(group, nodes).filter(|leader| !nodes.contains(&leader.node));
        // Where nobody leads, those that are left may know different memberships.
        let knowing = leader.map_or_else(|| survivors.clone(), |leader| vec![leader]);
        let known = knowing.iter().flat_map(|report| &report.members);
        let lost: BTreeSet<MemberId> =
            known.filter(|member| nodes.contains(&member.node)).map(|member| member.member).collect();
        let how = match (leader, survivors.iter().max_by_key(|report| (report.term, report.last_index))) {
            (Some(_), _) if lost.is_empty() => return None,
            (Some(leader), _) => Removal::ByLeader { leader: leader.node },
            (None, Some(_)) if lost.is_empty() => return None,
            (None, Some(newest)) => by_force_if_it_must_be(newest, &survivors, nodes),
            (None, None) => Removal::Nobody,
        };
        Some(GroupRemoval { name, group, members: lost.into_iter().collect(), how })
    }
}

/// What those that are left of a group without a leader can do.
fn by_force_if_it_must_be(
    newest: &MemberReport,
    survivors: &[&MemberReport],
    nodes: &BTreeSet<NodeId>,
) -> Removal {
    let answering: BTreeSet<NodeId> = survivors.iter().map(|report| report.node).collect();
    let voters: Vec<NodeId> = newest.voters().map(|voter| voter.node).collect();
    let works =
        |node: &&NodeId| survivors.iter().any(|report| report.node == **node && report.fenced.is_none());
    let working = voters.iter().filter(works).count();
    if working > voters.len() / 2 {
        return Removal::NotYet { answering: working as u64, voters: voters.len() as u64 };
    }
    let silent = voters.iter().filter(|node| !answering.contains(node) && !nodes.contains(node));
    Removal::ByForce {
        survivors: answering.iter().copied().collect(),
        voters: voters.len() as u64,
        newest_index: survivors.iter().map(|report| report.last_index).max().unwrap_or(0),
        still_silent: silent.copied().collect(),
    }
}

impl fmt::Display for RemovalPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to go on without the nodes {:?}", self.nodes)?;
        let by_leader = |removal: &&GroupRemoval| matches!(removal.how, Removal::ByLeader { .. });
        let safe = self.groups.iter().filter(by_leader).count();
        write!(f, ", {safe} groups replace members there and lose nothing")?;
        let others = self.groups.iter().filter(|removal| !by_leader(removal));
        others.into_iter().try_for_each(|removal| write!(f, "; {removal}"))
    }
}

impl fmt::Display for GroupRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_group(f, self.name.as_ref())?;
        match &self.how {
            Removal::ByLeader { leader } => {
                write!(f, " is led on {leader}, which replaces {:?}; nothing is lost", self.members)
            }
            Removal::ByForce { survivors, voters, newest_index, still_silent } => {
                write!(
                    f,
                    " has {} of {voters} voters left, on {survivors:?}; they go on with what the newest holds, up to index \
                     {newest_index}, and whatever only the others held is lost",
                    survivors.len()
                )?;
                if !still_silent.is_empty() {
                    write!(f, "; {still_silent:?} are silent too, and it may wait for them")?;
                }
                Ok(())
            }
            Removal::NotYet { answering, voters } => write!(
                f,
                " has {answering} of {voters} voters left, which is a majority: it will have a leader soon, and loses nothing"
            ),
            Removal::Nobody => {
                f.write_str(" has no member left that answers; nothing is done, and its entry is kept")
            }
        }
    }
}
