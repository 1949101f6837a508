//! How often something rare happened to a group: what a run has really tried.

use std::collections::BTreeSet;

use rafted_value::MemberId;
use rafted_value::sim::Standing;

use crate::sim::tally::Tally;

/// What goes on around a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Scene {
    /// Links are cut.
    pub(crate) cut: bool,
    /// A change of some group's membership is under way.
    pub(crate) changing: bool,
    /// A node is dead.
    pub(crate) dead: bool,
    /// A node is being drained.
    pub(crate) draining: bool,
    /// What moves from or to the group itself.
    pub(crate) moving: Option<Moving>,
}

/// A range of keys on its way from one group to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moving {
    /// To a new group.
    Split,
    /// To a neighbour, and the group ends.
    Merge,
}

/// Counts of one group.
#[derive(Debug, Default)]
pub(super) struct Rare {
    log_ends_replaced: u64,
    leaders: u64,
    leaders_with_other_voters: u64,
    leaders_while_cut: u64,
    leaders_while_changing: u64,
    leaders_while_draining: u64,
    leaders_while_splitting: u64,
    leaders_while_merging: u64,
    snapshots_while_cut: u64,
    snapshots_while_dead: u64,
    snapshots_while_draining: u64,
    snapshots_while_splitting: u64,
    snapshots_while_merging: u64,
    returns_while_cut: u64,
    voters: BTreeSet<MemberId>,
}

impl Rare {
    /// A log lost its end to a leader's entries.
    pub(super) fn note_log_end_replaced(&mut self) {
        self.log_ends_replaced += 1;
    }

    /// A member took a leader's snapshot.
    pub(super) fn note_snapshot(&mut self, scene: Scene) {
        self.snapshots_while_cut += u64::from(scene.cut);
        self.snapshots_while_dead += u64::from(scene.dead);
        self.snapshots_while_draining += u64::from(scene.draining);
        self.snapshots_while_splitting += u64::from(scene.moving == Some(Moving::Split));
        self.snapshots_while_merging += u64::from(scene.moving == Some(Moving::Merge));
    }

    /// A member came back from its disk.
    pub(super) fn note_return(&mut self, scene: Scene) {
        self.returns_while_cut += u64::from(scene.cut);
    }

    /// A new leader is seen.
    pub(super) fn note_leader(&mut self, standing: &Standing, scene: Scene) {
        let voters: BTreeSet<MemberId> = standing.voters.iter().copied().collect();
        if self.leaders > 0 {
            self.leaders_with_other_voters += u64::from(voters != self.voters);
            self.leaders_while_cut += u64::from(scene.cut);
            self.leaders_while_changing += u64::from(scene.changing);
            self.leaders_while_draining += u64::from(scene.draining);
            self.leaders_while_splitting += u64::from(scene.moving == Some(Moving::Split));
            self.leaders_while_merging += u64::from(scene.moving == Some(Moving::Merge));
        }
        self.leaders += 1;
        self.voters = voters;
    }

    /// Adds what was counted.
    pub(super) fn read_out(&self, tally: &mut Tally) {
        let counts = [
            ("rare: the uncommitted end of a log was replaced", self.log_ends_replaced),
            ("rare: a leader with other voters than the last", self.leaders_with_other_voters),
            ("rare: a change of leader while links were cut", self.leaders_while_cut),
            ("rare: a change of leader during a change of members", self.leaders_while_changing),
            ("rare: a change of leader during a drain", self.leaders_while_draining),
            ("rare: a change of leader during a split of its group", self.leaders_while_splitting),
            ("rare: a change of leader during a merge of its group", self.leaders_while_merging),
            ("rare: a snapshot taken in during a split of its group", self.snapshots_while_splitting),
            ("rare: a snapshot taken in during a merge of its group", self.snapshots_while_merging),
            ("rare: a snapshot taken in while links were cut", self.snapshots_while_cut),
            ("rare: a snapshot taken in while a node was dead", self.snapshots_while_dead),
            ("rare: a snapshot taken in during a drain", self.snapshots_while_draining),
            ("rare: a member back from its disk while links were cut", self.returns_while_cut),
        ];
        for (what, count) in counts {
            tally.add(what, count);
        }
    }
}
