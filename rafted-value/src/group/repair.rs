//! What an operator does to the survivors of a group that has lost its majority for good.

use super::Group;
use crate::error::GroupError;
use crate::id::{MemberId, NodeId};
use crate::message::{ChangeKind, MemberChange};
use crate::raft::convert::change_to_raft;

impl Group {
    /// Removes a member from this member's own view of the membership: no log entry, no vote, no leader.
    ///
    /// Unsafe by design. A leader or candidate goes on as what it is, with the smaller majority.
    pub(super) fn force_remove(&mut self, member: MemberId) -> Result<MemberId, GroupError> {
        let node = self.check_force_removal(member)?;
        let change = MemberChange { kind: ChangeKind::Remove, member, node };
        self.raw.apply_conf_change(&change_to_raft(&change)).map_err(|_| {
            let operation = "removed by force: no voter would be left".to_owned();
            GroupError::NoSuchMember { group: self.id, member, operation }
        })?;
        let machine = self.machine.as_mut().expect("it was looked for above");
        machine.apply_change(&change);
        self.snapshots_sent.remove(&member);
        self.outgoing.remove(&member);
        self.routes.remove(&member);
        tracing::warn!(group = %self.id, own = %self.member, %member, %node, "a member is removed by force");
        metrics::counter!("rafted_value_members_removed_by_force_total").increment(1);
        // The log says nothing of it, so that whatever begins from the last snapshot would bring the member back: a new
        // one is taken when the turn ends, and on a disk the member begins anew with it.
        self.membership_forced = true;
        Ok(self.member)
    }

    fn check_force_removal(&self, member: MemberId) -> Result<NodeId, GroupError> {
        let Some(machine) = &self.machine else {
            return Err(GroupError::NoSuchGroup(self.id));
        };
        if member == self.member {
            let operation = "removed by force on its own node".to_owned();
            return Err(GroupError::NoSuchMember { group: self.id, member, operation });
        }
        let node = *machine.nodes().get(&member).ok_or_else(|| self.not_member(member))?;
        if self.raw.snap().is_some() {
            // raft acts by the membership of a snapshot that the machine does not hold yet.
            return Err(GroupError::ChangeInProgress(self.id));
        }
        Ok(node)
    }
}
