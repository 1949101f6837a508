//! What a shard knows of the move that it takes part in, and of those before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key_range::KeyRange;

/// Ranges that went elsewhere, which a shard remembers at most.
const GONE_MAX: usize = 32;
/// So many hashes may have changed since a move began, of which the receiver may know; they are kept in memory and in every
/// snapshot.
pub(super) const CHANGES_MAX: usize = 2_000_000;

/// Whose step of which move a command is. Later ones are greater.
///
/// Moves are numbered over the whole cluster, performers of a move by their epochs, and the steps of a performer one by
/// one. A shard refuses what is less than what it has seen: a performer that was replaced, and a message that was
/// overtaken, change nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct MoveStep {
    pub(crate) move_id: u64,
    pub(crate) epoch: u64,
    pub(crate) step: u64,
}

/// How a move has ended for a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The range has its new owner.
    Done,
    /// The range has its old owner.
    Aborted,
}

/// How much of a move has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Everything up to this hash was copied once.
    pub(crate) copied: Option<u64>,
    /// Every change up to this one was copied after that.
    pub(crate) changes: u64,
    /// Every record that was made before this stamped time has come.
    pub(crate) records_ms: u64,
}

/// A range on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outgoing {
    pub(super) range: KeyRange,
    /// The shard that gets it.
    pub(super) to: u32,
    /// Whether this shard serves the range no more.
    pub(super) given_up: bool,
    /// The number of the newest change.
    pub(super) version: u64,
    /// The hashes that have changed since the move began, by the number of their newest change.
    pub(super) changes: BTreeMap<u64, u64>,
    /// ... and the other way round.
    latest: BTreeMap<u64, u64>,
}

/// A range on its way in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Incoming {
    pub(super) range: KeyRange,
    pub(super) progress: Progress,
}

/// Where a range went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Gone {
    /// The hashes.
    pub(crate) range: KeyRange,
    /// The shard that has them.
    pub(crate) to: u32,
    /// The move that brought them there.
    pub(crate) move_id: u64,
}

/// The part of a shard that is about moves.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Moves {
    /// The newest step that was seen.
    pub(super) newest: Option<MoveStep>,
    /// How the move of that step has ended, if it has.
    pub(super) outcome: Option<Outcome>,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) incoming: Option<Incoming>,
    /// Oldest first.
    pub(super) gone: Vec<Gone>,
}

/// Why a step is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoStep {
    /// A later one was seen.
    Stale,
    /// The move has ended.
    Over(Outcome),
    /// The shard takes part in an earlier move, which has not ended.
    Busy,
}

impl Moves {
    /// Takes note of a step, or says why it must not be taken.
    pub(super) fn begin(&mut self, step: MoveStep) -> Result<(), NoStep> {
        if let Some(newest) = self.newest {
            if step < newest {
                return Err(NoStep::Stale);
            }
            if step.move_id == newest.move_id {
                self.newest = Some(step);
                return self.outcome.map_or(Ok(()), |outcome| Err(NoStep::Over(outcome)));
            }
            if self.outgoing.is_some() || self.incoming.is_some() {
                return Err(NoStep::Busy);
            }
        }
        (self.newest, self.outcome) = (Some(step), None);
        Ok(())
    }

    /// The move of the newest step ends.
    pub(super) fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        (self.outgoing, self.incoming) = (None, None);
    }

    /// What a hash holds has changed. A move during which too much has changed ends: whoever receives it is perhaps not there,
    /// and this shard serves the range on.
    pub(super) fn changed(&mut self, hash: u64, changes_max: usize) {
        let Some(outgoing) = &mut self.outgoing else { return };
        outgoing.note(hash);
        if outgoing.changes.len() > changes_max && !outgoing.given_up {
            self.end(Outcome::Aborted);
        }
    }

    /// Remembers where a range went.
    pub(super) fn went(&mut self, gone: Gone) {
        self.came(gone.range);
        if self.gone.len() >= GONE_MAX {
            self.gone.remove(0);
        }
        self.gone.push(gone);
    }

    /// Forgets where a range went that is here again.
    pub(super) fn came(&mut self, range: KeyRange) {
        self.gone.retain(|gone| !gone.range.overlaps(range));
    }

    /// Where a hash that is not served here is likely to be.
    pub(super) fn hint(&self, hash: u64) -> Option<Gone> {
        if let Some(outgoing) = self.outgoing.as_ref().filter(|outgoing| outgoing.range.contains(hash)) {
            let move_id = self.newest.map_or(0, |step| step.move_id);
            return Some(Gone { range: outgoing.range, to: outgoing.to, move_id });
        }
        self.gone.iter().rev().find(|gone| gone.range.contains(hash)).copied()
    }
}

impl Outgoing {
    pub(super) fn new(range: KeyRange, to: u32) -> Self {
        Self { range, to, given_up: false, version: 0, changes: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// The same as it was written down.
    pub(super) fn restored(
        range: KeyRange,
        to: u32,
        given_up: bool,
        version: u64,
        changes: BTreeMap<u64, u64>,
    ) -> Self {
        let latest = changes.iter().map(|(version, hash)| (*hash, *version)).collect();
        Self { range, to, given_up, version, changes, latest }
    }

    /// What a hash holds has changed.
    pub(super) fn note(&mut self, hash: u64) {
        if !self.range.contains(hash) {
            return;
        }
        self.version += 1;
        if let Some(before) = self.latest.insert(hash, self.version) {
            self.changes.remove(&before);
        }
        self.changes.insert(self.version, hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(move_id: u64, epoch: u64, step: u64) -> MoveStep {
        MoveStep { move_id, epoch, step }
    }

    #[test]
    fn a_step_that_was_overtaken_is_refused() {
        let mut moves = Moves::default();
        assert_eq!(moves.begin(step(1, 1, 1)), Ok(()));
        assert_eq!(moves.begin(step(1, 2, 1)), Ok(()));
        assert_eq!(moves.begin(step(1, 1, 9)), Err(NoStep::Stale));
        assert_eq!(moves.begin(step(1, 2, 1)), Ok(()), "a repeated step is taken again");
        moves.end(Outcome::Done);
        assert_eq!(moves.begin(step(1, 2, 2)), Err(NoStep::Over(Outcome::Done)));
        assert_eq!(moves.begin(step(2, 1, 1)), Ok(()));
        assert_eq!(moves.begin(step(1, 7, 1)), Err(NoStep::Stale));
        moves.outgoing = Some(Outgoing::new(KeyRange::ALL, 5));
        assert_eq!(moves.begin(step(3, 1, 1)), Err(NoStep::Busy));
    }

    #[test]
    fn only_the_newest_change_of_a_hash_is_kept() {
        let mut outgoing = Outgoing::new(KeyRange::part(1, 2), 5);
        let high = u64::MAX - 1;
        for hash in [high, u64::MAX, 3, high] {
            outgoing.note(hash);
        }
        assert_eq!(outgoing.changes, [(2, u64::MAX), (3, high)].into());
        let again = Outgoing::restored(outgoing.range, 5, false, 3, outgoing.changes.clone());
        assert_eq!(again, outgoing);
    }

    /// Changes were once noted for as long as a receiver was not there, without any limit.
    #[test]
    fn a_move_ends_where_too_much_has_changed_but_not_once_the_range_is_given_up() {
        for given_up in [false, true] {
            let mut moves = Moves::default();
            assert_eq!(moves.begin(step(1, 1, 1)), Ok(()));
            moves.outgoing = Some(Outgoing { given_up, ..Outgoing::new(KeyRange::ALL, 5) });
            (0..5).for_each(|hash| moves.changed(hash % 3, 3));
            assert_eq!(moves.begin(step(1, 1, 2)), Ok(()), "three have changed");
            moves.changed(9, 3);
            let over = if given_up { Ok(()) } else { Err(NoStep::Over(Outcome::Aborted)) };
            assert_eq!(moves.begin(step(1, 1, 3)), over);
            assert_eq!(moves.outgoing.is_some(), given_up);
        }
    }

    #[test]
    fn a_shard_remembers_the_newest_places_of_ranges_that_went() {
        let mut moves = Moves::default();
        for index in 0..40 {
            moves.went(Gone { range: KeyRange::part(index, 64), to: index, move_id: u64::from(index) });
        }
        assert_eq!(moves.hint(0), None);
        assert_eq!(moves.hint(KeyRange::part(39, 64).first()).unwrap().to, 39);
        moves.came(KeyRange::part(39, 64));
        assert_eq!(moves.hint(KeyRange::part(39, 64).first()), None);
    }
}
