//! Ends members on this node that their groups have removed while it was away, where nobody is left who would tell them.
//!
//! A member that comes back asks the members that it knows, and those tell it. Where all of them have gone meanwhile, it
//! would ask for ever, and its node could never be empty.

use std::collections::BTreeMap;

use rafted_value::{GroupId, GroupStatus, Host, MemberId, Role};

use crate::core::Core;
use crate::inspect::{MemberReport, find_leader};

/// Members that are asked about in one look.
const ASKED_MAX: usize = 64;

/// Members that had no leader at the last look.
#[derive(Default)]
pub(crate) struct Orphans(BTreeMap<GroupId, MemberId>);

impl Orphans {
    /// Ends the members that had no leader at the last look either, and that their group's leader does not know.
    pub(crate) async fn end(&mut self, core: &Core, host: &Host) {
        let view = core.views.current();
        let statuses = host.statuses().await;
        let lonely: Vec<&GroupStatus> = statuses.iter().filter(|status| is_lonely(status)).collect();
        let again = lonely.iter().filter(|status| self.0.get(&status.group) == Some(&status.member));
        for status in again.take(ASKED_MAX) {
            let (group, member) = (status.group, status.member);
            let Some(desired) = view.desired(group) else { continue };
            let leader = find_leader(core, group, &desired).await;
            if !leader.is_some_and(|leader| is_removed(status, &leader)) {
                continue;
            }
            tracing::info!(%group, %member, node = %core.node, "a member that its group has removed ends");
            if let Err(error) = host.drop_former_member(group, member).await {
                tracing::warn!(%group, %member, %error, "a member does not end yet");
            }
        }
        self.0 = lonely.into_iter().map(|status| (status.group, status.member)).collect();
    }
}

/// Whether a member that has its state knows no leader.
fn is_lonely(status: &GroupStatus) -> bool {
    let works = status.fenced.is_none() && !status.members.is_empty();
    works && status.role != Role::Leader && status.leader.is_none()
}

/// Whether what a leader says is proof that a member was removed: it leads since the member heard anything of its group or
/// later, so that it knows every member that was added before, and this one is not among those that are left.
fn is_removed(status: &GroupStatus, leader: &MemberReport) -> bool {
    leader.term >= status.term && leader.members.iter().all(|member| member.member != status.member)
}
