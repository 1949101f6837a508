//! When a member takes a snapshot of its state, and what becomes of its log then.

use bytes::Bytes;
use raft::eraftpb::Snapshot;

use super::machine::{Machine, MachineError};
use super::{Group, Turn};
use crate::errand::{Errand, Work};
use crate::id::MemberId;
use crate::message::{Body, GroupMessage, WireSnapshot};
use crate::raft::convert::snapshot_from_wire;
use crate::store::KeptFile;

/// Entries kept behind a snapshot for followers that are a little behind.
const ENTRIES_KEPT: u64 = 1024;
/// The same once nothing was added for a while: who is still behind by then was cut off.
const IDLE_ENTRIES_KEPT: u64 = 16;
/// What the log of an idle group may hold without a snapshot, however small its last one is.
const IDLE_LOG_BYTES: u64 = 64 << 10;

/// A member waits for one part in this many of its limit longer than the one before it.
const TURN_DIVISOR: u64 = 8;
/// The last place that has a turn of its own.
const TURNS_MAX: u64 = 8;

/// How large a log is that a member in this place cuts. The log of all members grows alike, and each stands still for as long
/// as it takes to copy a large value: where they do so in turn, the others are a majority that goes on.
fn in_turn(limit: u64, place: u64) -> u64 {
    limit.saturating_add(limit / TURN_DIVISOR * place.min(TURNS_MAX))
}

impl Group {
    /// Takes a snapshot when the log has grown large beside the last one since it was taken, or raft needs a newer one.
    /// A group to which nothing is added any more need not hold a log that is longer than its snapshot: what it gives back
    /// then was paid for by what was written.
    ///
    /// Growth counts, not size: entries are kept behind a snapshot for followers that lack them, and a log that is large
    /// because of those would otherwise have a snapshot taken at every entry.
    pub(super) fn compact(&mut self, turn: &mut Turn<'_>) -> Result<(), MachineError> {
        let (log, applied) = (self.raw.store(), self.raw.raft.raft_log.applied);
        // A disk that damages whatever is written to it is not to be kept busy for ever.
        let mended = log.is_damaged() && turn.now >= self.mend_due;
        if !self.may_take_snapshot() || !(self.membership_forced || mended || applied > log.snapshot_index())
        {
            return Ok(());
        }
        let limit = if self.idles() { self.idle_log_limit() } else { self.log_limit() };
        let grown = log.bytes_since_snapshot();
        let large = grown > limit && (self.idles() || grown > in_turn(limit, self.place()));
        let due = self.membership_forced || mended || large || log.take_wanted();
        let expected = log.state_bytes() + grown;
        let Some(machine) = self.machine.as_ref().filter(|_| due) else { return Ok(()) };
        if mended {
            self.mend_due = turn.now + turn.limits.snapshot_retry;
        }
        let forced = std::mem::take(&mut self.membership_forced);
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let members = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        let term =
            self.raw.raft.raft_log.term(applied).expect("an applied entry is in the log or its snapshot");
        let (voters, learners) = (members(&conf.voters), members(&conf.learners));
        let snapshot = WireSnapshot { index: applied, term, voters, learners, state: Bytes::new() };
        let bytes = usize::try_from(expected).unwrap_or(0);
        if !forced && let Some(machine) = machine.freeze(bytes)? {
            self.encoding = true;
            let work = Work::Encode { snapshot, machine: Box::new(machine) };
            turn.out.errands.push(Errand { group: self.id, member: self.member, work });
            return Ok(());
        }
        let snapshot = snapshot_from_wire(WireSnapshot { state: machine.snapshot(bytes)?, ..snapshot });
        if forced {
            self.begin_anew(turn, snapshot);
        } else {
            self.take_over_snapshot(turn, snapshot);
        }
        metrics::counter!("rafted_value_snapshots_taken_total").increment(1);
        Ok(())
    }

    /// A snapshot of this member's own is encoded; the log has gone on meanwhile.
    pub(crate) fn encoded(&mut self, turn: &mut Turn<'_>, snapshot: WireSnapshot) {
        self.encoding = false;
        // A leader's newer one may have overtaken it, or be about to.
        if self.may_take_snapshot() && self.is_newer(snapshot.index) {
            self.take_over_snapshot(turn, snapshot_from_wire(snapshot));
            metrics::counter!("rafted_value_snapshots_taken_total").increment(1);
        }
    }

    /// A leader's snapshot is decoded: raft takes it now, if it still needs it.
    pub(crate) fn take_decoded(&mut self, turn: &mut Turn<'_>, message: GroupMessage, machine: Box<Machine>) {
        self.incoming_snapshot.take_if(|incoming| incoming.is_decoded_for(message.from));
        if let Body::Snapshot { snapshot } = &message.body {
            self.decoded = Some((snapshot.index, machine));
            self.receive_from_leader(turn, message);
        }
    }

    /// Whether a snapshot at `index` is better than the one that there is.
    pub(super) fn is_newer(&self, index: u64) -> bool {
        let log = self.raw.store();
        index > log.snapshot_index() || (index == log.snapshot_index() && log.is_damaged())
    }

    /// Lets the log begin behind a newer snapshot, whose state may be in a file.
    pub(super) fn compact_log(&mut self, snapshot: Snapshot, file: Option<KeptFile>) {
        let index = snapshot.get_metadata().index;
        if let Some(machine) = self.machine.as_mut() {
            machine.forget_poisoned(index);
        }
        self.held_max = self.about_bytes();
        let drop_to = self.drop_to(index, self.log_limit());
        self.raw.mut_store().compact(snapshot, file, drop_to);
        if self.idles() {
            self.raw.mut_store().trim();
        }
    }

    fn log_limit(&self) -> u64 {
        let factor = u64::from(self.config.log_expansion_factor);
        self.raw.store().state_bytes().saturating_mul(factor).max(self.config.log_bytes_min)
    }

    /// This member's place among all of its group.
    fn place(&self) -> u64 {
        let nodes = self.machine.as_ref().map(Machine::nodes);
        nodes.map_or(0, |nodes| nodes.range(..self.member).count() as u64)
    }

    fn idle_log_limit(&self) -> u64 {
        self.raw.store().state_bytes().max(IDLE_LOG_BYTES)
    }

    /// Which entries may go: not those that a follower still lacks, unless the log is far too large by now.
    fn drop_to(&self, index: u64, limit: u64) -> u64 {
        let log = self.raw.store();
        if log.take_shrinks() || log.bytes() > limit.saturating_mul(4) {
            return index;
        }
        let slowest = match self.leading {
            // Who is given a snapshot goes on from there.
            Some(_) => {
                let progress = self.raw.raft.prs().iter();
                progress.map(|(_, progress)| progress.matched.max(progress.pending_snapshot)).min()
            }
            None => None,
        };
        let kept = if self.idles() { IDLE_ENTRIES_KEPT } else { ENTRIES_KEPT };
        slowest.unwrap_or_else(|| index.saturating_sub(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three members of a large shard once copied it at the same entry, and nobody was there to commit the next.
    #[test]
    fn members_cut_their_logs_one_after_the_other_and_no_log_grows_to_twice_its_limit() {
        let limits: Vec<u64> = (0..20).map(|place| in_turn(1 << 20, place)).collect();
        assert_eq!(limits[0], 1 << 20);
        assert!(limits[..=8].windows(2).all(|pair| pair[1] - pair[0] == 128 << 10), "{limits:?}");
        assert!(limits.iter().all(|limit| *limit <= 2 << 20), "{limits:?}");
        assert_eq!(in_turn(u64::MAX, 1), u64::MAX);
    }
}
