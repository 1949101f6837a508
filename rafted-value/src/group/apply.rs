//! What comes out of Raft: entries and snapshots to keep and apply, messages to send.

use raft::Ready;
use raft::eraftpb::{Entry, EntryType, Snapshot};

use super::keep::Brought;
use super::machine::{Machine, MachineError};
use super::{Group, Turn};
use crate::entry::EntryKind;
use crate::error::Unknown;
use crate::id::MemberId;
use crate::message::WireSnapshot;
use crate::raft::convert::{read_change, snapshot_from_wire};

/// Entries kept behind a snapshot for followers that are a little behind.
const ENTRIES_KEPT: u64 = 1024;

impl Group {
    /// Handles one `Ready` of raft. Where nothing goes to the disk, what must be kept is so at once.
    pub(super) fn perform_ready(&mut self, turn: &mut Turn<'_>) -> Result<(), MachineError> {
        let mut ready = self.raw.ready();
        self.send(turn, ready.take_messages());
        let restored = !ready.snapshot().get_metadata().get_conf_state().voters.is_empty();
        if restored {
            self.restore(ready.snapshot().clone())?;
        }
        self.raw.mut_store().append(ready.entries());
        #[cfg(feature = "sim")]
        self.tell_appended(ready.entries());
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        if self.keeper.is_slow() || (restored && self.keeper.would_begin(turn.keeps)) {
            return self.perform_slowly(turn, ready, restored);
        }
        self.send(turn, ready.take_persisted_messages());
        self.apply(turn, ready.take_committed_entries())?;
        if self.removed {
            // It is no member any more, and raft would not know what to advance.
            return Ok(());
        }
        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
        }
        self.send(turn, light.take_messages());
        self.apply(turn, light.take_committed_entries())?;
        self.raw.advance_apply();
        Ok(())
    }

    /// Handles a `Ready` whose keeping takes a while.
    fn perform_slowly(
        &mut self,
        turn: &mut Turn<'_>,
        mut ready: Ready,
        restored: bool,
    ) -> Result<(), MachineError> {
        let messages = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        let entries = ready.take_entries();
        let (number, must_sync) = (ready.number(), ready.must_sync());
        self.raw.advance_append_async(ready);
        let changes = committed.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal);
        self.keep(turn, Brought { number, must_sync, restored, entries: &entries, changes }, messages);
        self.apply(turn, committed)?;
        if !self.removed {
            self.note_applied();
        }
        Ok(())
    }

    /// Starts over from a leader's snapshot.
    fn restore(&mut self, snapshot: Snapshot) -> Result<(), MachineError> {
        let index = snapshot.get_metadata().index;
        let machine = Machine::restore(self.id, &self.registry, index, &snapshot.data)?;
        if self.machine.is_none() || *machine.config() != self.config {
            self.take_settings(machine.config().clone());
        }
        self.machine = Some(machine);
        self.voters_since = index;
        self.raw.mut_store().restore(snapshot);
        #[cfg(feature = "sim")]
        self.tell_log(false);
        tracing::debug!(group = %self.id, member = %self.member, index, "restored from a snapshot");
        metrics::counter!("rafted_value_snapshots_restored_total").increment(1);
        Ok(())
    }

    fn apply(&mut self, turn: &mut Turn<'_>, entries: Vec<Entry>) -> Result<(), MachineError> {
        for entry in entries {
            if self.leading == Some(entry.term) && !self.serving {
                // Everything committed in earlier terms is applied as well by now.
                self.serving = true;
                if let Some(machine) = &mut self.machine {
                    machine.tell_elected();
                }
            }
            match entry.get_entry_type() {
                EntryType::EntryNormal => match EntryKind::of(&entry.data) {
                    EntryKind::Nothing => {}
                    EntryKind::Config => self.apply_settings(turn, &entry)?,
                    EntryKind::Comparison => self.apply_comparison(turn, &entry)?,
                    EntryKind::Commands => self.apply_commands(turn, &entry)?,
                },
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    let change = read_change(&entry).ok_or_else(|| MachineError::Entry {
                        index: entry.index,
                        reason: "it is no membership change".into(),
                    })?;
                    self.apply_change(turn, &entry, &change);
                }
            }
        }
        Ok(())
    }

    fn apply_commands(&mut self, turn: &mut Turn<'_>, entry: &Entry) -> Result<(), MachineError> {
        let machine =
            self.machine.as_mut().expect("entries are applied after the snapshot that precedes them");
        let results = machine.apply_commands(self.raw.store(), entry)?;
        self.divergence.count(results.len());
        while let Some(proposal) = self.proposals.front() {
            if proposal.index > entry.index {
                break;
            }
            let proposal = self.proposals.pop_front().expect("there is a front");
            self.waiting -= proposal.waiters.len();
            if proposal.index == entry.index && proposal.term == entry.term {
                for (waiter, result) in proposal.waiters.into_iter().zip(results) {
                    turn.out.command(waiter, result);
                }
                break;
            }
            for waiter in proposal.waiters {
                turn.out.command(waiter, Err(Unknown::LeaderChanged(self.id).into()));
            }
        }
        Ok(())
    }

    /// Takes a snapshot when the log has grown large beside the last one since it was taken, or raft needs a newer one.
    ///
    /// Growth counts, not size: entries are kept behind a snapshot for followers that lack them, and a log that is large
    /// because of those would otherwise have a snapshot taken at every entry.
    pub(super) fn compact(&mut self, turn: &mut Turn<'_>) -> Result<(), MachineError> {
        let (log, applied) = (self.raw.store(), self.raw.raft.raft_log.applied);
        if !self.may_take_snapshot() || (applied <= log.snapshot_index() && !self.membership_forced) {
            return Ok(());
        }
        let due =
            self.membership_forced || log.bytes_since_snapshot() > self.log_limit() || log.take_wanted();
        let Some(machine) = self.machine.as_mut().filter(|_| due) else { return Ok(()) };
        let forced = std::mem::take(&mut self.membership_forced);
        let state = machine.snapshot()?;
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let members = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        let term =
            self.raw.raft.raft_log.term(applied).expect("an applied entry is in the log or its snapshot");
        let snapshot = WireSnapshot {
            index: applied,
            term,
            voters: members(&conf.voters),
            learners: members(&conf.learners),
            state,
        };
        let snapshot = snapshot_from_wire(snapshot);
        if forced {
            self.begin_anew(turn, snapshot);
        } else {
            self.take_over_snapshot(turn, snapshot);
        }
        metrics::counter!("rafted_value_snapshots_taken_total").increment(1);
        Ok(())
    }

    /// Lets the log begin behind a newer snapshot.
    pub(super) fn compact_log(&mut self, snapshot: Snapshot) {
        let index = snapshot.get_metadata().index;
        if let Some(machine) = self.machine.as_mut() {
            machine.forget_poisoned(index);
        }
        let drop_to = self.drop_to(index, self.log_limit());
        self.raw.mut_store().compact(snapshot, drop_to);
    }

    fn log_limit(&self) -> u64 {
        let snapshot_bytes = self.raw.store().snapshot_ref().data.len() as u64;
        (snapshot_bytes * u64::from(self.config.log_expansion_factor)).max(self.config.log_bytes_min)
    }

    /// Which entries may go: not those that a follower still lacks, unless the log is far too large by now.
    fn drop_to(&self, index: u64, limit: u64) -> u64 {
        if self.raw.store().bytes() > limit.saturating_mul(4) {
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
        slowest.unwrap_or_else(|| index.saturating_sub(ENTRIES_KEPT))
    }
}
