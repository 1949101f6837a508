//! Who leads a group, as its members say: whether it is served.

use rafted_value::{GroupId, GroupStatus, Role};

/// The leader that serves a group: it holds a lease, or rests for want of work and wakes when it is asked. A quiet leader
/// takes no rounds, and its lease has ended; groups without a key were once waited for until the seed failed (seed 20050 of
/// the stack's scenario at the time).
///
/// # Errors
///
/// What the members say, where none of them serves.
pub(super) fn serving_leader(statuses: &[GroupStatus], group: GroupId) -> Result<&GroupStatus, String> {
    let members = || statuses.iter().filter(|status| status.group == group);
    let leaders = members().filter(|status| status.role == Role::Leader && status.ready);
    let newest = leaders.max_by_key(|status| status.term);
    newest.filter(|status| status.leased || status.quiet).ok_or_else(|| {
        let say = |status: &GroupStatus| {
            let GroupStatus { member, role, term, ready, leased, quiet, .. } = status;
            format!("{member} is {role:?} in term {term}, ready {ready}, leased {leased}, quiet {quiet}")
        };
        let said: Vec<String> = members().map(say).collect();
        format!("{group} has no leader that serves: {}", said.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::engine::status;

    #[test]
    fn a_quiet_leader_serves_its_group_and_one_that_has_lost_its_lease_does_not() {
        let leads = |term| GroupStatus { role: Role::Leader, ready: true, term, ..status(1) };
        let serves = |statuses: &[GroupStatus]| {
            serving_leader(statuses, GroupId(1)).map(|leader| leader.term).map_err(drop)
        };
        assert_eq!(serves(&[status(1)]), Err(()));
        assert_eq!(serves(&[leads(1)]), Err(()));
        assert_eq!(serves(&[GroupStatus { leased: true, ..leads(2) }, leads(1)]), Ok(2));
        assert_eq!(serves(&[GroupStatus { quiet: true, ..leads(2) }]), Ok(2));
        // A later one has its place, and does not serve yet.
        assert_eq!(serves(&[GroupStatus { quiet: true, ..leads(2) }, leads(3)]), Err(()));
        assert_eq!(serves(&[GroupStatus { group: GroupId(2), leased: true, ..leads(1) }]), Err(()));
    }
}
