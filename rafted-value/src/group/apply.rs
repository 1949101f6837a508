//! What comes out of Raft: entries and snapshots to keep and apply, messages to send.

use raft::Ready;
use raft::eraftpb::{Entry, EntryType, Message, Snapshot};

use super::keep::Brought;
use super::machine::{Machine, MachineError};
use super::{Group, Turn};
use crate::entry::EntryKind;
use crate::error::Unknown;
use crate::raft::convert::read_change;

impl Group {
    /// Handles one `Ready` of raft. Where nothing goes to the disk, what must be kept is so at once.
    pub(super) fn perform_ready(&mut self, turn: &mut Turn<'_>) -> Result<(), MachineError> {
        let mut ready = self.raw.ready();
        let held = self.send_in_a_kept_term(turn, ready.take_messages());
        let restored = !ready.snapshot().get_metadata().get_conf_state().voters.is_empty();
        if restored {
            self.restore(ready.snapshot().clone())?;
        }
        if restored || !ready.entries().is_empty() || !ready.committed_entries().is_empty() {
            self.grew();
        }
        self.raw.mut_store().append(ready.entries());
        #[cfg(feature = "sim")]
        self.tell_appended(ready.entries());
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        if self.keeper.is_slow() || (restored && self.keeper.would_begin(turn.keeps)) {
            return self.perform_slowly(turn, ready, restored, held);
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
        mut messages: Vec<Message>,
    ) -> Result<(), MachineError> {
        messages.extend(ready.take_persisted_messages());
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
        let decoded = self.decoded.take().filter(|(known, _)| *known == index);
        let machine = match decoded {
            Some((_, machine)) => *machine,
            None => Machine::restore(self.id, &self.registry, index, &snapshot.data)?,
        };
        if self.machine.is_none() || *machine.config() != self.config {
            self.take_settings(machine.config().clone());
        }
        self.machine = Some(machine);
        self.voters_since = index;
        self.held_max = self.about_bytes();
        self.raw.mut_store().restore(snapshot);
        self.forgo_append_windows();
        #[cfg(feature = "sim")]
        self.tell_log();
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
            let count = proposal.waiters.len();
            self.waiting -= count;
            // The lines of all groups of the loop are behind what it did meanwhile: no command waits for that by itself.
            let alone = turn.now.since(proposal.since).saturating_sub(turn.busy - proposal.busy);
            // Those of one entry wait for each other.
            let wait = (alone, proposal.ahead + count.saturating_sub(1));
            self.pace.takes_out(turn.now, count, wait, turn.limits.wait_target);
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
}
