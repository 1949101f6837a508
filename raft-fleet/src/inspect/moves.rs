//! Which members are not where they should be yet. Pure.

use rafted_value::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

use super::{Inspection, MemberReport};
use crate::group_name::GroupName;
use crate::view::View;

/// A member that is not where it should be yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// The name of its group; `None` for the cluster's own.
    pub name: Option<GroupName>,
    /// Its group.
    pub group: GroupId,
    /// The node that is to get or to lose something.
    pub node: NodeId,
    /// What.
    pub kind: MoveKind,
}

/// How far a move has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum MoveKind {
    /// The node is to get a member, and waits for its turn.
    Waiting,
    /// The node has a member that is brought up to date.
    CatchingUp {
        /// How many entries it lacks; `None` while it waits for its first state.
        behind: Option<u64>,
    },
    /// The node has a member that is to end.
    Leaving,
    /// The node is to lead, and holds a voter.
    LeadingNext,
}

impl Inspection {
    /// What is still to be done, group by group.
    pub(crate) fn moves(&self, view: &View) -> Vec<Move> {
        let mut moves = Vec::new();
        for group in self.reports.keys() {
            let (Some(leader), Some(desired)) = (self.leader(*group), view.desired(*group)) else { continue };
            let name = view.name_of(*group).cloned();
            let kinds = kinds(leader, &desired).into_iter();
            moves.extend(kinds.map(|(node, kind)| Move { name: name.clone(), group: *group, node, kind }));
        }
        moves
    }
}

pub(super) fn kinds(leader: &MemberReport, desired: &[NodeId]) -> Vec<(NodeId, MoveKind)> {
    let mut kinds = Vec::new();
    for member in &leader.members {
        if !desired.contains(&member.node) && !desired.is_empty() {
            kinds.push((member.node, MoveKind::Leaving));
        } else if !member.voter {
            let behind = member.matched.filter(|matched| *matched > 0);
            let behind = behind.map(|matched| leader.last_index.saturating_sub(matched));
            kinds.push((member.node, MoveKind::CatchingUp { behind }));
        }
    }
    let has_member = |node: &NodeId| leader.members.iter().any(|member| member.node == *node);
    kinds.extend(desired.iter().filter(|node| !has_member(node)).map(|node| (*node, MoveKind::Waiting)));
    if let Some(first) = desired.first().filter(|first| **first != leader.node)
        && leader.voters().any(|voter| voter.node == *first)
    {
        kinds.push((*first, MoveKind::LeadingNext));
    }
    kinds
}

#[cfg(test)]
mod tests {
    use rafted_value::MemberId;

    use super::super::ReportedMember;
    use super::*;

    #[test]
    fn every_member_that_is_not_at_its_place_is_a_move() {
        let member = |node: u64, voter: bool, matched: u64| ReportedMember {
            member: MemberId(node),
            node: NodeId(node),
            voter,
            matched: Some(matched),
            heard: Some(true),
        };
        let leader = MemberReport {
            node: NodeId(1),
            group: GroupId(16),
            member: MemberId(1),
            leads: true,
            leader: Some(NodeId(1)),
            term: 1,
            commit_index: 100,
            last_index: 100,
            fenced: None,
            members: vec![
                member(1, true, 100),
                member(2, true, 100),
                member(3, false, 40),
                member(4, false, 0),
            ],
        };
        let nodes = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
        let expected = [
            (NodeId(1), MoveKind::Leaving),
            (NodeId(3), MoveKind::CatchingUp { behind: Some(60) }),
            (NodeId(4), MoveKind::CatchingUp { behind: None }),
            (NodeId(5), MoveKind::Waiting),
            (NodeId(2), MoveKind::LeadingNext),
        ];
        assert_eq!(kinds(&leader, &nodes(&[2, 3, 4, 5])), expected);
        assert_eq!(kinds(&leader, &nodes(&[1, 2])).len(), 2, "needless learners leave");
        assert_eq!(kinds(&leader, &[]).len(), 2, "with no node to go to, nobody leaves");
    }
}
