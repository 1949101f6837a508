//! The next step that brings one group nearer to where it should be. Pure: the leader's status and the wish in, at
//! most one change of the membership out.
//!
//! What holds at every step: a voter that is heard of is only removed if the rest still has a majority of voters that
//! are heard of; a learner is only promoted once it has caught up, and so brings more than it costs. A voter that is
//! not heard of stays until another is ready to take its place or it is one too many: if it comes back it still counts.

use std::collections::BTreeSet;

use rafted_value::{GroupStatus, MemberId, MemberStatus, NodeId, Role};

/// A learner that lacks more entries than this has not caught up; the host has the last word.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// One change of a group's membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Add a learner on this node.
    AddLearner {
        /// The node.
        node: NodeId,
    },
    /// Make this learner a voter.
    Promote {
        /// The learner.
        member: MemberId,
        /// Its node.
        node: NodeId,
    },
    /// Remove this member.
    Remove {
        /// The member.
        member: MemberId,
        /// Its node.
        node: NodeId,
    },
    /// Hand the leadership over to this voter.
    Transfer {
        /// The voter.
        member: MemberId,
        /// Its node.
        node: NodeId,
    },
}

/// The next step of the group whose leader gives `status`, so that its voters come to be on the `desired` nodes, and its
/// leader on the first of them; `None` when there is nothing to do, nothing that can be done yet, or the status is not a
/// serving leader's.
///
/// A leader whose node is not desired hands over before anything else, to a voter that is where it should be; only where
/// there is none does the group have a voter more for a while. A leader on a desired node that is not the first hands
/// over after everything else.
pub fn plan(status: &GroupStatus, desired: &[NodeId]) -> Option<Step> {
    if !serves(status) || desired.is_empty() || status.transfer_to.is_some() {
        return None;
    }
    let survey = Survey::new(status, desired);
    survey
        .leader_away()
        .or_else(|| survey.needless_learner())
        .or_else(|| survey.missing_member())
        .or_else(|| survey.needless_voter())
        .or_else(|| survey.swap())
        .or_else(|| survey.leader_home())
}

/// Whether the member that gives `status` leads its group and serves.
pub(crate) fn serves(status: &GroupStatus) -> bool {
    status.role == Role::Leader && status.ready && status.fenced.is_none()
}

/// Whether the leader that gives `status` is on a node where the group does not belong.
pub(crate) fn leads_away(status: &GroupStatus, desired: &[NodeId]) -> bool {
    let leader = status.members.iter().find(|member| member.member == status.member);
    status.role == Role::Leader && leader.is_some_and(|leader| !desired.contains(&leader.node))
}

/// Whether the group has as many voters as it should have, and so may be used.
pub(crate) fn is_complete(status: &GroupStatus, desired: &[NodeId]) -> bool {
    let voters = status.members.iter().filter(|member| member.voter).count();
    status.role == Role::Leader && status.ready && voters >= desired.len()
}

/// Whether a learner is on its way to become a voter, so that looking again soon is worth it.
pub(crate) fn is_waiting(status: &GroupStatus, desired: &[NodeId]) -> bool {
    status.members.iter().any(|member| !member.voter && desired.contains(&member.node))
}

/// Whether a learner that is heard of is still being brought up to date.
pub(crate) fn is_loading(status: &GroupStatus) -> bool {
    let loads = |member: &MemberStatus| {
        !member.voter && member.responsive == Some(true) && !is_caught_up(status, member)
    };
    status.role == Role::Leader && status.members.iter().any(loads)
}

fn is_caught_up(status: &GroupStatus, member: &MemberStatus) -> bool {
    let behind = status.last_index.saturating_sub(member.matched.unwrap_or(0));
    member.matched.is_some_and(|matched| matched > 0) && behind <= CAUGHT_UP_ENTRIES
}

struct Survey<'a> {
    status: &'a GroupStatus,
    desired: &'a [NodeId],
    voters: Vec<&'a MemberStatus>,
    learners: Vec<&'a MemberStatus>,
}

impl<'a> Survey<'a> {
    fn new(status: &'a GroupStatus, desired: &'a [NodeId]) -> Self {
        let (voters, learners) = status.members.iter().partition(|member| member.voter);
        Self { status, desired, voters, learners }
    }

    fn is_desired(&self, member: &MemberStatus) -> bool {
        self.desired.contains(&member.node)
    }

    fn is_leader(&self, member: &MemberStatus) -> bool {
        member.member == self.status.member
    }

    fn is_heard(&self, member: &MemberStatus) -> bool {
        self.is_leader(member) || member.responsive == Some(true)
    }

    fn is_caught_up(&self, member: &MemberStatus) -> bool {
        is_caught_up(self.status, member)
    }

    /// The voter on this node, if it could lead at once.
    fn could_lead(&self, node: NodeId) -> Option<Step> {
        let voter = self.voters.iter().find(|member| member.node == node)?;
        let able = !self.is_leader(voter) && self.is_heard(voter) && self.is_caught_up(voter);
        able.then_some(Step::Transfer { member: voter.member, node })
    }

    fn leader_away(&self) -> Option<Step> {
        let away = leads_away(self.status, self.desired);
        self.desired.iter().filter(|_| away).find_map(|node| self.could_lead(*node))
    }

    fn leader_home(&self) -> Option<Step> {
        self.could_lead(*self.desired.first()?)
    }

    /// A learner has no vote: taking it away from a node where it does not belong costs nothing.
    fn needless_learner(&self) -> Option<Step> {
        let learner = self.learners.iter().find(|member| !self.is_desired(member))?;
        Some(remove(learner))
    }

    fn missing_member(&self) -> Option<Step> {
        let present: BTreeSet<NodeId> = self.status.members.iter().map(|member| member.node).collect();
        let node = *self.desired.iter().find(|node| !present.contains(node))?;
        Some(Step::AddLearner { node })
    }

    /// A learner that has caught up takes its place: as one voter more while there are too few, else for a voter that
    /// does not belong here. A dead one goes first, because the group is no weaker without it; a living one goes after,
    /// and so does a leader, once it has handed over.
    fn swap(&self) -> Option<Step> {
        let ready = |member: &&&MemberStatus| self.is_heard(member) && self.is_caught_up(member);
        let learner = self.learners.iter().find(ready)?;
        let promote = Step::Promote { member: learner.member, node: learner.node };
        if self.voters.len() < self.desired.len() {
            return Some(promote);
        }
        let needless =
            || self.voters.iter().filter(|member| !self.is_desired(member) && !self.is_leader(member));
        match needless().find(|member| !self.is_heard(member)) {
            Some(dead) => Some(remove(dead)),
            None if needless().next().is_some() || leads_away(self.status, self.desired) => Some(promote),
            None => None,
        }
    }

    /// A voter too many, the dead before the living.
    fn needless_voter(&self) -> Option<Step> {
        if self.voters.len() <= self.desired.len() {
            return None;
        }
        let needless =
            || self.voters.iter().filter(|member| !self.is_desired(member) && !self.is_leader(member));
        if let Some(dead) = needless().find(|member| !self.is_heard(member)) {
            return Some(remove(dead));
        }
        let living = needless().next()?;
        let heard = self.voters.iter().filter(|member| self.is_heard(member)).count();
        let majority_after = (self.voters.len() - 1) / 2 + 1;
        (heard > majority_after).then(|| remove(living))
    }
}

fn remove(member: &MemberStatus) -> Step {
    Step::Remove { member: member.member, node: member.node }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rafted_value::GroupId;

    use super::*;

    /// A group as its leader sees it: (node, voter, alive).
    fn status(leader: u64, members: &[(u64, bool, bool)]) -> GroupStatus {
        let members = members.iter().map(|(node, voter, alive)| MemberStatus {
            member: MemberId(node * 10),
            node: NodeId(*node),
            voter: *voter,
            matched: Some(if *alive { 100 } else { 0 }),
            responsive: Some(*alive),
        });
        GroupStatus {
            group: GroupId(16),
            data: "d".into(),
            member: MemberId(leader * 10),
            role: Role::Leader,
            term: 2,
            leader: Some(NodeId(leader)),
            ready: true,
            leased: true,
            members: members.collect(),
            commit_index: 100,
            applied_index: 100,
            last_index: 100,
            ..crate::blank_status::blank_status()
        }
    }

    fn check(leader: u64, members: &[(u64, bool, bool)], desired: &[u64], expected: Option<Step>) {
        let desired: Vec<NodeId> = desired.iter().copied().map(NodeId).collect();
        assert_eq!(plan(&status(leader, members), &desired), expected);
    }

    fn add(node: u64) -> Option<Step> {
        Some(Step::AddLearner { node: NodeId(node) })
    }

    fn promote(node: u64) -> Option<Step> {
        Some(Step::Promote { member: MemberId(node * 10), node: NodeId(node) })
    }

    fn removal(node: u64) -> Option<Step> {
        Some(Step::Remove { member: MemberId(node * 10), node: NodeId(node) })
    }

    fn transfer(node: u64) -> Option<Step> {
        Some(Step::Transfer { member: MemberId(node * 10), node: NodeId(node) })
    }

    const V: bool = true;
    const L: bool = false;
    const UP: bool = true;
    const DOWN: bool = false;

    #[test]
    fn a_new_group_grows_from_its_founder() {
        check(1, &[(1, V, UP)], &[1, 2, 3], add(2));
        check(1, &[(1, V, UP), (2, L, UP)], &[1, 2, 3], add(3));
        check(1, &[(1, V, UP), (2, L, DOWN), (3, L, UP)], &[1, 2, 3], promote(3));
        check(1, &[(1, V, UP), (2, L, DOWN), (3, V, UP)], &[1, 2, 3], None);
        check(1, &[(1, V, UP), (2, V, UP), (3, V, UP)], &[1, 2, 3], None);
    }

    #[test]
    fn a_dead_voter_makes_room_once_another_is_ready_to_take_its_place() {
        check(1, &[(1, V, UP), (2, V, UP), (3, V, DOWN)], &[1, 2, 4], add(4));
        check(1, &[(1, V, UP), (2, V, UP), (3, V, DOWN), (4, L, DOWN)], &[1, 2, 4], None);
        check(1, &[(1, V, UP), (2, V, UP), (3, V, DOWN), (4, L, UP)], &[1, 2, 4], removal(3));
        check(1, &[(1, V, UP), (2, V, UP), (4, L, UP)], &[1, 2, 4], promote(4));
    }

    #[test]
    fn a_living_voter_goes_after_its_successor_has_come() {
        check(1, &[(1, V, UP), (2, V, UP), (3, V, UP), (4, L, UP)], &[1, 2, 4], promote(4));
        check(1, &[(1, V, UP), (2, V, UP), (3, V, UP), (4, V, UP)], &[1, 2, 4], removal(3));
    }

    #[test]
    fn a_living_voter_stays_while_the_group_needs_it_for_a_majority() {
        let members = [(1, V, UP), (2, V, DOWN), (3, V, UP), (4, V, UP), (5, V, DOWN)];
        check(1, &members, &[1, 2, 5], None);
    }

    #[test]
    fn a_dead_voter_on_a_node_that_is_listed_is_waited_for() {
        check(1, &[(1, V, UP), (2, V, UP), (3, V, DOWN)], &[1, 2, 3], None);
    }

    #[test]
    fn a_cluster_that_shrinks_removes_the_dead_without_a_successor() {
        check(1, &[(1, V, UP), (2, V, UP), (3, V, DOWN)], &[1, 2], removal(3));
    }

    /// It once stayed where it was until its node died, and its successor waited as a learner.
    #[test]
    fn a_leader_that_does_not_belong_hands_over_before_anything_else() {
        check(4, &[(1, V, UP), (2, V, UP), (4, V, UP)], &[1, 2, 3], transfer(1));
        check(4, &[(1, V, DOWN), (2, V, UP), (4, V, UP)], &[1, 2, 3], transfer(2));
        check(4, &[(1, V, UP), (2, V, UP), (3, L, UP), (4, V, UP)], &[3, 2, 1], transfer(2));
        check(1, &[(1, V, UP), (2, V, UP), (3, L, UP), (4, V, UP)], &[1, 2, 3], promote(3));
    }

    #[test]
    fn a_leader_that_nobody_could_follow_has_a_voter_added_first() {
        check(1, &[(1, V, UP)], &[2], add(2));
        check(1, &[(1, V, UP), (2, L, DOWN)], &[2], None);
        check(1, &[(1, V, UP), (2, L, UP)], &[2], promote(2));
        check(1, &[(1, V, UP), (2, V, UP)], &[2], transfer(2));
        check(2, &[(1, V, UP), (2, V, UP)], &[2], removal(1));
    }

    #[test]
    fn the_leadership_goes_home_once_all_members_are_where_they_should_be() {
        check(1, &[(1, V, UP), (2, V, UP), (3, V, UP)], &[2, 1, 3], transfer(2));
        check(1, &[(1, V, UP), (2, V, DOWN), (3, V, UP)], &[2, 1, 3], None);
        check(1, &[(1, V, UP), (2, V, UP), (4, V, UP)], &[2, 1, 3], add(3));
        let mut under_way = status(1, &[(1, V, UP), (2, V, UP)]);
        under_way.transfer_to = Some(MemberId(20));
        assert_eq!(plan(&under_way, &[NodeId(2), NodeId(1)]), None);
        let mut behind = status(1, &[(1, V, UP), (2, V, UP)]);
        behind.last_index = 1000;
        assert_eq!(
            plan(&behind, &[NodeId(2), NodeId(1)]),
            None,
            "a voter that lacks much would be slow to lead"
        );
    }

    #[test]
    fn nothing_is_done_without_a_serving_leader_or_a_wish() {
        let mut follower = status(1, &[(1, V, UP)]);
        follower.role = Role::Follower;
        assert_eq!(plan(&follower, &[NodeId(2)]), None);
        assert_eq!(plan(&status(1, &[(1, V, UP)]), &[]), None);
        let mut fresh = status(1, &[(1, V, UP)]);
        fresh.ready = false;
        assert_eq!(plan(&fresh, &[NodeId(2)]), None);
    }

    /// A group as it is: voters and learners by node, and which nodes live.
    #[derive(Clone, Debug)]
    struct Model {
        members: Vec<(u64, bool)>,
        alive: BTreeSet<u64>,
        leader: u64,
    }

    impl Model {
        fn status(&self) -> GroupStatus {
            let members: Vec<_> =
                self.members.iter().map(|(node, voter)| (*node, *voter, self.alive.contains(node))).collect();
            status(self.leader, &members)
        }

        fn voters(&self) -> Vec<u64> {
            self.members.iter().filter(|(_, voter)| *voter).map(|(node, _)| *node).collect()
        }

        fn has_quorum(&self) -> bool {
            let voters = self.voters();
            let living = voters.iter().filter(|node| self.alive.contains(node)).count();
            living > voters.len() / 2
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::AddLearner { node } => {
                    assert!(self.members.iter().all(|(other, _)| *other != node.0));
                    self.members.push((node.0, false));
                }
                Step::Promote { node, .. } => {
                    let member = self.members.iter_mut().find(|(other, _)| *other == node.0).unwrap();
                    assert!(!member.1, "a voter is promoted");
                    assert!(self.alive.contains(&node.0), "a dead learner is promoted");
                    member.1 = true;
                }
                Step::Remove { node, .. } => {
                    assert_ne!(node.0, self.leader, "the leader removes itself");
                    self.members.retain(|(other, _)| *other != node.0);
                }
                Step::Transfer { node, .. } => {
                    assert!(self.members.contains(&(node.0, true)), "only a voter can lead");
                    assert!(self.alive.contains(&node.0) && self.leader != node.0);
                    self.leader = node.0;
                }
            }
        }
    }

    fn model() -> impl Strategy<Value = (Model, Vec<u64>)> {
        let members = prop::collection::btree_map(1..9_u64, any::<bool>(), 1..6);
        let alive = prop::collection::btree_set(1..9_u64, 0..9);
        let desired = prop::collection::btree_set(1..9_u64, 1..6);
        (members, alive, desired, any::<prop::sample::Index>()).prop_filter_map(
            "a group has a leader and a majority",
            |(members, alive, desired, leader)| {
                let members: Vec<(u64, bool)> = members.into_iter().collect();
                let living = members.iter().filter(|(node, voter)| *voter && alive.contains(node));
                let living: Vec<u64> = living.map(|(node, _)| *node).collect();
                if living.is_empty() {
                    return None;
                }
                let model = Model { members, alive, leader: *leader.get(&living) };
                model.has_quorum().then(|| (model, desired.into_iter().collect()))
            },
        )
    }

    proptest! {
        #[test]
        fn from_any_members_to_any_nodes_it_converges_and_never_loses_its_majority((start, desired) in model()) {
            let mut model = start.clone();
            let wish: Vec<NodeId> = desired.iter().copied().map(NodeId).collect();
            let mut steps = Vec::new();
            while let Some(step) = plan(&model.status(), &wish) {
                model.apply(step);
                steps.push(step);
                prop_assert!(model.has_quorum(), "{steps:?}");
                prop_assert!(steps.len() <= 30, "no end: {steps:?}");
            }
            if desired.iter().all(|node| model.alive.contains(node)) {
                let voters: BTreeSet<u64> = model.voters().into_iter().collect();
                let wanted: BTreeSet<u64> = desired.iter().copied().collect();
                prop_assert_eq!(&voters, &wanted, "{:?} from {:?}", steps, start);
                prop_assert_eq!(model.leader, desired[0], "{:?} from {:?}", steps, start);
                let transfers = steps.iter().filter(|step| matches!(step, Step::Transfer { .. })).count();
                prop_assert!(transfers <= 2, "{steps:?} from {start:?}");
            }
        }

        /// Nodes that restart empty one after the other come back one by one, whoever leads.
        #[test]
        fn a_group_survives_the_replacement_of_all_its_nodes(order in Just(vec![1_u64, 2, 3]).prop_shuffle()) {
            let mut model = Model { members: vec![(1, true), (2, true), (3, true)], alive: [1, 2, 3].into(), leader: 1 };
            let mut desired = vec![1, 2, 3];
            for (node, next) in order.into_iter().zip(11..) {
                model.alive.remove(&node);
                model.alive.insert(next);
                desired.iter_mut().filter(|other| **other == node).for_each(|other| *other = next);
                if model.leader == node {
                    model.leader = *model.voters().iter().find(|voter| model.alive.contains(voter)).unwrap();
                }
                let wish: Vec<NodeId> = desired.iter().copied().map(NodeId).collect();
                while let Some(step) = plan(&model.status(), &wish) {
                    model.apply(step);
                    prop_assert!(model.has_quorum());
                }
                let mut voters = model.voters();
                voters.sort_unstable();
                let mut wanted = desired.clone();
                wanted.sort_unstable();
                prop_assert_eq!(voters, wanted);
            }
        }
    }
}
