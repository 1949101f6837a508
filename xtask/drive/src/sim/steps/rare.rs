//! How often something rare happened to a group: what a run has really tried.

use std::collections::BTreeSet;

use rafted_value::MemberId;
use rafted_value::sim::Standing;

use crate::sim::tally::Tally;

/// Counts of one group.
#[derive(Debug, Default)]
pub(super) struct Rare {
    cuts: u64,
    leaders: u64,
    /// Leaders that came to power with other voters than the leader before them.
    leaders_with_other_voters: u64,
    voters: BTreeSet<MemberId>,
}

impl Rare {
    /// A log lost its end to a leader's entries.
    pub(super) fn note_cut(&mut self) {
        self.cuts += 1;
    }

    /// A new leader is seen.
    pub(super) fn note_leader(&mut self, standing: &Standing) {
        let voters: BTreeSet<MemberId> = standing.voters.iter().copied().collect();
        if self.leaders > 0 && voters != self.voters {
            self.leaders_with_other_voters += 1;
        }
        self.leaders += 1;
        self.voters = voters;
    }

    /// Adds what was counted.
    pub(super) fn read_out(&self, tally: &mut Tally) {
        tally.add("rare: an uncommitted end of a log was replaced", self.cuts);
        tally.add("rare: a leader with other voters than the last", self.leaders_with_other_voters);
    }
}
