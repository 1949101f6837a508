//! Whether a cluster bears the loss of one more node. Pure.

use std::fmt;

use rafted_value::{GroupId, NodeId};

use super::moves::{MoveKind, kinds};
use super::{Inspection, MemberReport, in_use, write_group};
use crate::cluster_state::GroupState;
use crate::group_name::GroupName;
use crate::view::View;

/// Entries that a member may lack and count as one that has caught up: under load none ever has the last.
const BEHIND_MAX: u64 = 256;

/// The first thing that a cluster was found to lack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Lack {
    /// A node that should hold members does not answer.
    Silent(NodeId),
    /// A group is not in use yet.
    Founding(GroupName),
    /// Something is missing in a group; one without a name is the cluster's own.
    Group(Option<GroupName>, GroupLack),
}

/// What a group lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum GroupLack {
    Leader,
    Fenced(NodeId),
    /// A member on this node is not where it should be.
    Move(NodeId),
    /// The member on this node was not heard lately, or lacks more entries than it may.
    Behind(NodeId),
}

impl Inspection {
    /// What a cluster lacks; `None` where every group has a leader and every member that it should have, all of them near
    /// and with nearly all that there is.
    pub(crate) fn lack(&self, view: &View) -> Option<Lack> {
        let state = &view.state;
        let active = |node: &&NodeId| state.nodes().get(node).is_some_and(|entry| entry.active);
        if let Some(silent) = self.silent.iter().find(active) {
            return Some(Lack::Silent(*silent));
        }
        let is_founding =
            |(_, entry): &(_, &crate::cluster_state::GroupEntry)| entry.state != GroupState::Running;
        if let Some((name, _)) = state.groups().iter().find(is_founding) {
            return Some(Lack::Founding(name.clone()));
        }
        in_use(state).find_map(|(group, name)| {
            let desired = view.desired(group).unwrap_or_default();
            Some(Lack::Group(name, self.lack_of(group, &desired)?))
        })
    }

    fn lack_of(&self, group: GroupId, desired: &[NodeId]) -> Option<GroupLack> {
        let Some(leader) = self.leader(group) else { return Some(GroupLack::Leader) };
        // One that the group has removed is its node's business.
        let is_member =
            |report: &&MemberReport| leader.members.iter().any(|member| member.member == report.member);
        let mut fenced = self.of(group).iter().filter(|report| report.fenced.is_some());
        if let Some(fenced) = fenced.find(is_member) {
            return Some(GroupLack::Fenced(fenced.node));
        }
        // Who leads is of no consequence here.
        let is_missing = |(_, kind): &&(NodeId, MoveKind)| *kind != MoveKind::LeadingNext;
        if let Some((node, _)) = kinds(leader, desired).iter().find(is_missing) {
            return Some(GroupLack::Move(*node));
        }
        behind(leader).map(GroupLack::Behind)
    }
}

fn behind(leader: &MemberReport) -> Option<NodeId> {
    let is_near = |member: &&super::ReportedMember| {
        let has_all = member.matched.is_some_and(|matched| matched + BEHIND_MAX >= leader.last_index);
        member.member == leader.member || (member.heard == Some(true) && has_all)
    };
    leader.members.iter().find(|member| !is_near(member)).map(|member| member.node)
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Silent(node) => write!(f, "node {node} does not answer"),
            Lack::Founding(name) => write!(f, "group {name:?} is still being founded"),
            Lack::Group(name, lack) => {
                write_group(f, name.as_ref())?;
                match lack {
                    GroupLack::Leader => write!(f, " has no leader"),
                    GroupLack::Fenced(node) => write!(f, " is fenced on node {node}"),
                    GroupLack::Move(node) => {
                        write!(f, " waits for a member that comes to node {node} or leaves it")
                    }
                    GroupLack::Behind(node) => {
                        write!(f, " has a member on node {node} that is not up to date")
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rafted_value::MemberId;

    use super::super::ReportedMember;
    use super::*;

    fn member(node: u64, voter: bool, matched: u64, heard: bool) -> ReportedMember {
        let (member, node) = (MemberId(node), NodeId(node));
        ReportedMember { member, node, voter, matched: Some(matched), heard: Some(heard) }
    }

    fn lack(members: Vec<ReportedMember>, desired: &[u64]) -> Option<GroupLack> {
        lack_beside(members, desired, None)
    }

    /// The same with a fenced member somewhere.
    fn lack_beside(
        members: Vec<ReportedMember>,
        desired: &[u64],
        fenced: Option<(u64, u64)>,
    ) -> Option<GroupLack> {
        let leader = MemberReport {
            node: NodeId(1),
            group: GroupId(16),
            member: MemberId(1),
            leads: true,
            leader: Some(NodeId(1)),
            term: 1,
            commit_index: 1_000,
            last_index: 1_000,
            fenced: None,
            members,
        };
        let mut inspection = Inspection::default();
        let fenced = fenced.map(|(node, member)| MemberReport {
            node: NodeId(node),
            member: MemberId(member),
            leads: false,
            leader: None,
            fenced: Some("its disk failed".into()),
            members: Vec::new(),
            ..leader.clone()
        });
        inspection.reports.insert(GroupId(16), [leader].into_iter().chain(fenced).collect());
        let desired: Vec<_> = desired.iter().copied().map(NodeId).collect();
        inspection.lack_of(GroupId(16), &desired)
    }

    #[test]
    fn a_group_is_whole_when_all_its_members_are_there_and_have_nearly_all() {
        let whole =
            || vec![member(1, true, 1_000, true), member(2, true, 990, true), member(3, true, 800, true)];
        assert_eq!(lack(whole(), &[2, 1, 3]), None);
        assert_eq!(lack(whole(), &[1, 2, 4]), Some(GroupLack::Move(NodeId(3))));
        assert_eq!(lack(whole(), &[1, 2, 3, 4]), Some(GroupLack::Move(NodeId(4))));
        let with = |last| vec![member(1, true, 1_000, true), member(2, true, 1_000, true), last];
        assert_eq!(lack(with(member(3, false, 1_000, true)), &[1, 2, 3]), Some(GroupLack::Move(NodeId(3))));
        assert_eq!(lack(with(member(3, true, 700, true)), &[1, 2, 3]), Some(GroupLack::Behind(NodeId(3))));
        assert_eq!(lack(with(member(3, true, 1_000, false)), &[1, 2, 3]), Some(GroupLack::Behind(NodeId(3))));
        let alone = vec![member(1, true, 1_000, true), member(2, true, 9, false), member(3, true, 9, false)];
        assert_eq!(lack(alone, &[1, 2, 3]), Some(GroupLack::Leader));
    }

    /// It was reported as fenced on that node for ever, long after another had taken its place.
    #[test]
    fn a_fenced_member_that_its_group_has_removed_is_no_lack() {
        let whole =
            || vec![member(1, true, 1_000, true), member(2, true, 990, true), member(3, true, 800, true)];
        let desired = &[1, 2, 3];
        assert_eq!(lack_beside(whole(), desired, Some((3, 3))), Some(GroupLack::Fenced(NodeId(3))));
        assert_eq!(lack_beside(whole(), desired, Some((4, 0))), None);
    }
}
