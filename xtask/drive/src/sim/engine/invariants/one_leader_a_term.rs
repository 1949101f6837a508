//! Election safety: at most one leader a term (Raft, figure 3).

use std::collections::BTreeMap;

use rafted_value::{GroupId, MemberId, Role};

use super::Sighting;

/// Who led each term of each group.
#[derive(Debug, Default)]
pub(super) struct OneLeaderATerm(BTreeMap<(GroupId, u64), MemberId>);

impl OneLeaderATerm {
    /// # Errors
    ///
    /// When another member led this term.
    pub(super) fn observe(&mut self, sighting: &Sighting) -> Result<(), String> {
        let status = &sighting.status;
        if status.role != Role::Leader {
            return Ok(());
        }
        let first = *self.0.entry((status.group, status.term)).or_insert(status.member);
        if first == status.member {
            return Ok(());
        }
        Err(format!("group {}: {first} and {} both led term {}", status.group, status.member, status.term))
    }

    /// How many leaders followed another.
    pub(super) fn changes(&self) -> u64 {
        let groups: std::collections::BTreeSet<GroupId> = self.0.keys().map(|(group, _)| *group).collect();
        (self.0.len() - groups.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::sighting;
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut leaders = OneLeaderATerm::default();
        let (mut one, mut two) = (sighting(1, 1), sighting(2, 2));
        one.status.role = Role::Leader;
        leaders.observe(&one).unwrap();
        leaders.observe(&two).unwrap();
        (two.status.role, two.status.term) = (Role::Leader, 2);
        leaders.observe(&two).unwrap();
        leaders.observe(&one).unwrap();
        assert_eq!(leaders.changes(), 1);
        two.status.term = 1;
        leaders.observe(&two).unwrap_err();
    }
}
