//! Ends members on this node that their groups have removed while it was away, where nobody is left who would tell them.
//!
//! A member that comes back asks the members that it knows, and those tell it. Where all of them have gone meanwhile, it
//! would ask for ever, and its node could never be empty. A member that is fenced asks nobody at all.

use std::collections::BTreeMap;

use rafted_value::{GroupId, GroupStatus, Host, MemberId, Role};

use crate::core::Core;
use crate::inspect::{MemberReport, find_leader};

/// Members that are asked about in one look.
const ASKED_MAX: usize = 64;

/// Members that nobody would tell, as they were at the last look.
#[derive(Default)]
pub(crate) struct Orphans {
    lonely: BTreeMap<GroupId, MemberId>,
    /// The last one that was asked about: the next look goes on behind it, so that those that stay hold up no others.
    asked: Option<GroupId>,
}

impl Orphans {
    /// Ends the members that nobody would have told at the last look either, and that their group's leader does not know. Says
    /// whether there were any: where many are to end, the next look is worth it soon.
    pub(crate) async fn end(&mut self, core: &Core, host: &Host) -> bool {
        let view = core.views.current();
        let mut ended = false;
        for status in self.turn(&host.statuses().await) {
            let (group, member) = (status.group, status.member);
            let Some(desired) = view.desired(group) else { continue };
            let leader = find_leader(core, group, &desired).await;
            if !leader.is_some_and(|leader| is_removed(&status, &leader)) {
                continue;
            }
            tracing::info!(%group, %member, node = %core.node, "a member that its group has removed ends");
            match host.drop_former_member(group, member).await {
                Ok(()) => ended = true,
                Err(error) => tracing::warn!(%group, %member, %error, "a member does not end yet"),
            }
        }
        ended
    }

    /// Those of all members here, in the order of their groups, that are to be asked about now.
    fn turn(&mut self, statuses: &[GroupStatus]) -> Vec<GroupStatus> {
        let lonely: Vec<&GroupStatus> = statuses.iter().filter(|status| is_lonely(status)).collect();
        let again: Vec<&GroupStatus> = lonely
            .iter()
            .copied()
            .filter(|status| self.lonely.get(&status.group) == Some(&status.member))
            .collect();
        let begin = again.partition_point(|status| Some(status.group) <= self.asked);
        let round = again[begin..].iter().chain(&again[..begin]);
        let turn: Vec<GroupStatus> = round.take(ASKED_MAX).map(|status| (*status).clone()).collect();
        self.asked = turn.last().map(|status| status.group);
        self.lonely = lonely.into_iter().map(|status| (status.group, status.member)).collect();
        turn
    }
}

/// Whether nobody would tell a member that it was removed: one that has its state and knows no leader, or one that is fenced.
fn is_lonely(status: &GroupStatus) -> bool {
    let is_led = status.role == Role::Leader || status.leader.is_some();
    status.fenced.is_some() || (!status.members.is_empty() && !is_led)
}

/// Whether what a leader says is proof that a member was removed: this one is not among those that are left, and the leader
/// knows every member that was added before. That it does where it leads since the member heard anything of its group or
/// later; of a fenced member that does not tell its term, where the leader names one that was added after: ids only grow.
fn is_removed(status: &GroupStatus, leader: &MemberReport) -> bool {
    let knows_of_it = match (status.term, &status.fenced) {
        (0, Some(_)) => leader.members.iter().any(|member| member.member > status.member),
        (term, _) => leader.term >= term,
    };
    knows_of_it && leader.members.iter().all(|member| member.member != status.member)
}

#[cfg(test)]
mod tests {
    use rafted_value::NodeId;

    use super::*;
    use crate::blank_status::blank_status;
    use crate::inspect::ReportedMember;

    fn status(member: u64, term: u64, fenced: bool) -> GroupStatus {
        GroupStatus {
            group: GroupId(16),
            member: MemberId(member),
            term,
            fenced: fenced.then(|| "its disk failed".into()),
            ..blank_status()
        }
    }

    fn leader(term: u64, members: &[u64]) -> MemberReport {
        let member = |id: &u64| ReportedMember {
            member: MemberId(*id),
            node: NodeId(*id),
            voter: true,
            matched: Some(10),
            heard: Some(true),
        };
        MemberReport {
            node: NodeId(1),
            group: GroupId(16),
            member: MemberId(members[0]),
            leads: true,
            leader: Some(NodeId(1)),
            term,
            commit_index: 10,
            last_index: 10,
            fenced: None,
            members: members.iter().map(member).collect(),
        }
    }

    /// A member that was fenced was nobody's business: its group removed it, and its node was never empty.
    #[test]
    fn a_fenced_member_is_removed_where_the_leader_must_know_that_it_was_added() {
        assert!(is_lonely(&status(3, 0, true)) && is_lonely(&status(3, 7, true)));
        let is_removed =
            |term, leads_in, members: &[u64]| is_removed(&status(3, term, true), &leader(leads_in, members));
        assert!(is_removed(0, 9, &[1, 2, 4]), "a later one was added");
        assert!(!is_removed(0, 9, &[1, 2]), "a leader of long ago may not know it yet");
        assert!(!is_removed(0, 9, &[1, 2, 3, 4]), "it is still a member");
        assert!(is_removed(7, 7, &[1, 2]));
        assert!(!is_removed(7, 6, &[1, 2, 4]), "an older leader");
        assert!(!is_removed(7, 7, &[1, 2, 3]));
    }

    #[test]
    fn a_member_without_state_or_with_a_leader_is_not_lonely() {
        assert!(!is_lonely(&status(3, 0, false)));
        let members = status(3, 7, false);
        let member = rafted_value::MemberStatus {
            member: MemberId(3),
            node: NodeId(3),
            voter: true,
            matched: None,
            responsive: None,
        };
        let members = GroupStatus { members: vec![member], ..members };
        assert!(is_lonely(&members));
        assert!(!is_lonely(&GroupStatus { leader: Some(NodeId(1)), ..members.clone() }));
        assert!(!is_lonely(&GroupStatus { role: Role::Leader, ..members }));
    }

    /// The first ones were asked about at each look, and where they stayed, no other ever.
    #[test]
    fn each_look_goes_on_behind_the_last_one() {
        let fenced = |group| GroupStatus { group: GroupId(group), ..status(3, 0, true) };
        let statuses: Vec<GroupStatus> = (0..100).map(fenced).collect();
        let mut orphans = Orphans::default();
        let mut turn =
            || -> Vec<u64> { orphans.turn(&statuses).iter().map(|status| status.group.0).collect() };
        assert_eq!(turn(), [0_u64; 0], "nobody may have had the time to tell them");
        assert_eq!(turn(), (0..64).collect::<Vec<u64>>());
        assert_eq!(turn(), (64..100).chain(0..28).collect::<Vec<u64>>());
        assert_eq!(turn(), (28..92).collect::<Vec<u64>>());
    }
}
