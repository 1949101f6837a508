//! What comes out of Raft: entries and snapshots to keep and apply, messages to send.

use raft::eraftpb::{Entry, EntryType};

use super::machine::{Machine, MachineError};
use super::{Group, Turn};
use crate::entry::EntryBody;
use crate::error::Unknown;
use crate::id::MemberId;
use crate::message::WireSnapshot;
use crate::raft::convert::{read_change, snapshot_from_wire};

/// Entries kept behind a snapshot for followers that are a little behind.
const ENTRIES_KEPT: u64 = 1024;

impl Group {
    /// Handles one `Ready` of raft. The log is in memory, so what must be persisted is so at once.
    pub(super) fn perform_ready(&mut self, turn: &mut Turn<'_>) -> Result<(), MachineError> {
        let mut ready = self.raw.ready();
        self.send(turn, ready.take_messages());
        if !ready.snapshot().get_metadata().get_conf_state().voters.is_empty() {
            self.restore(ready.snapshot().clone())?;
        }
        self.raw.mut_store().append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
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

    /// Starts over from a leader's snapshot.
    fn restore(&mut self, snapshot: raft::eraftpb::Snapshot) -> Result<(), MachineError> {
        let index = snapshot.get_metadata().index;
        let machine = Machine::restore(self.id, &self.registry, index, &snapshot.data)?;
        if self.machine.is_none() || *machine.config() != self.config {
            self.take_settings(machine.config().clone());
        }
        self.machine = Some(machine);
        self.raw.mut_store().restore(snapshot);
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
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal if EntryBody::is_config(&entry.data) => {
                    self.apply_settings(turn, &entry)?;
                }
                EntryType::EntryNormal => self.apply_commands(turn, &entry)?,
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
    pub(super) fn compact(&mut self) -> Result<(), MachineError> {
        let log = self.raw.store();
        let limit = (log.snapshot_ref().data.len() as u64 * u64::from(self.config.log_expansion_factor))
            .max(self.config.log_bytes_min);
        let applied = self.raw.raft.raft_log.applied;
        let due = log.bytes_since_snapshot() > limit || log.take_wanted();
        let Some(machine) = self.machine.as_mut() else { return Ok(()) };
        if !self.membership_forced && (!due || applied <= log.snapshot_index()) {
            return Ok(());
        }
        self.membership_forced = false;
        let state = machine.snapshot()?;
        machine.forget_poisoned(applied);
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
        let drop_to = self.drop_to(applied, limit);
        self.raw.mut_store().compact(snapshot_from_wire(snapshot), drop_to);
        metrics::counter!("rafted_value_snapshots_taken_total").increment(1);
        Ok(())
    }

    /// Which entries may go: not those that a follower still lacks, unless the log is far too large by now.
    fn drop_to(&self, applied: u64, limit: u64) -> u64 {
        if self.raw.store().bytes() > limit.saturating_mul(4) {
            return applied;
        }
        let slowest = match self.leading {
            Some(_) => self.raw.raft.prs().iter().map(|(_, progress)| progress.matched).min(),
            None => None,
        };
        slowest.unwrap_or_else(|| applied.saturating_sub(ENTRIES_KEPT))
    }
}
