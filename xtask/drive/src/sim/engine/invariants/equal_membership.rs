//! Members that have applied the same entries know the same members and keep the same number of replies.

use std::collections::BTreeMap;

use rafted_value::{GroupId, MemberId, NodeId};

use super::Sighting;

type Membership = Vec<(MemberId, NodeId, bool)>;

/// What members said at each applied index.
#[derive(Debug, Default)]
pub(super) struct EqualMembership(BTreeMap<(GroupId, u64), (Membership, u64)>);

impl EqualMembership {
    /// # Errors
    ///
    /// When another member said something else at the same applied index.
    pub(super) fn observe(&mut self, sighting: &Sighting) -> Result<(), String> {
        let status = &sighting.status;
        if status.data.is_empty() {
            return Ok(());
        }
        let members = || status.members.iter().map(|member| (member.member, member.node, member.voter));
        let at = (status.group, status.applied_index);
        let (first, replies) =
            self.0.entry(at).or_insert_with(|| (members().collect(), status.session_replies));
        if first.iter().copied().eq(members()) && *replies == status.session_replies {
            return Ok(());
        }
        Err(format!(
            "group {} at index {}: {} on {} says {:?} and {} replies, another said {first:?} and {replies}",
            at.0, at.1, status.member, sighting.node, status.members, status.session_replies
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sighting;
    use super::*;

    #[test]
    fn another_count_of_replies_at_the_same_index_is_found() {
        let mut equal = EqualMembership::default();
        equal.observe(&sighting(1, 1)).unwrap();
        let mut other = sighting(2, 2);
        equal.observe(&other).unwrap();
        other.status.session_replies = 1;
        equal.observe(&other).unwrap_err();
        other.status.applied_index = 2;
        equal.observe(&other).unwrap();
    }
}
