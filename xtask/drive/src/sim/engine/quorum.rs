//! Whose state may be lost: members live in memory, so a kill must leave a majority of every membership in force.
//!
//! Raft promises nothing once a majority of voters has lost its state. The harness must know every membership that any
//! member may act by, including those of a change whose fate is not known.

use std::collections::BTreeSet;

use rafted_value::MemberId;

/// The voters that a group may have, as far as the harness cannot tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Memberships(BTreeSet<BTreeSet<MemberId>>);

/// A change of the voters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum VoterChange {
    Gain(MemberId),
    Lose(MemberId),
}

impl Memberships {
    /// Some member acts by these voters.
    pub(super) fn add(&mut self, voters: BTreeSet<MemberId>) {
        if !voters.is_empty() {
            self.0.insert(voters);
        }
    }

    /// A change that may or may not come into force, on top of any.
    pub(super) fn perhaps(&mut self, change: VoterChange) {
        let changed: Vec<_> = self.0.iter().map(|voters| change.apply(voters)).collect();
        for voters in changed {
            self.add(voters);
        }
    }

    /// Whether each of them has a majority among the members that are left.
    pub(super) fn survive_with(&self, left: &BTreeSet<MemberId>) -> bool {
        self.0.iter().all(|voters| has_majority(voters, left))
    }
}

impl VoterChange {
    /// The voters after it.
    pub(super) fn apply(self, voters: &BTreeSet<MemberId>) -> BTreeSet<MemberId> {
        let mut voters = voters.clone();
        match self {
            VoterChange::Gain(member) => voters.insert(member),
            VoterChange::Lose(member) => voters.remove(&member),
        };
        voters
    }
}

/// Whether more than half of `voters` are left.
pub(super) fn has_majority(voters: &BTreeSet<MemberId>, left: &BTreeSet<MemberId>) -> bool {
    2 * voters.intersection(left).count() > voters.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    #[test]
    fn every_membership_that_may_be_in_force_needs_its_majority() {
        let mut memberships = Memberships::default();
        memberships.add(members(&[1, 2, 3]));
        assert!(memberships.survive_with(&members(&[1, 2])));
        assert!(!memberships.survive_with(&members(&[1, 4])));
        memberships.perhaps(VoterChange::Gain(MemberId(4)));
        assert!(!memberships.survive_with(&members(&[1, 2])), "of 1, 2, 3, 4 two are no majority");
        assert!(memberships.survive_with(&members(&[1, 2, 4])));
        memberships.perhaps(VoterChange::Lose(MemberId(1)));
        assert!(memberships.survive_with(&members(&[2, 3, 4])));
        assert!(!memberships.survive_with(&members(&[1, 2, 4])), "of 2, 3 one is no majority");
    }
}
