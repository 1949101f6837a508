//! A member that comes back with what the disk has of it.

use std::time::Duration;

use raft::Storage;
use raft::eraftpb::{Entry, HardState};

use super::keep::Keeper;
use super::machine::{Machine, MachineError};
use super::{Group, Turn};
use crate::config::Durability;
use crate::id::{GroupId, MemberId, NodeId};
use crate::keepsake::{Keepsake, rank_of};
use crate::message::{WireEntry, WireSnapshot};
use crate::raft::convert::{entry_from_wire, snapshot_from_wire};
use crate::raft::log::MemberLog;
use crate::registry::Registry;
use crate::store::{KeptFile, VoteRecord};

/// What the disk has of a member.
pub(crate) struct KeptMember {
    pub(crate) member: MemberId,
    pub(crate) durability: Durability,
    /// Without its state, if that is in a file.
    pub(crate) snapshot: WireSnapshot,
    pub(crate) file: Option<KeptFile>,
    /// The snapshot's state, decoded.
    pub(crate) machine: Box<Machine>,
    pub(crate) vote: VoteRecord,
    /// Index and term of the entry before the first.
    pub(crate) before: (u64, u64),
    pub(crate) entries: Vec<WireEntry>,
}

impl KeptMember {
    /// The last entry that it has.
    pub(crate) fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.before.0.max(self.snapshot.index), |entry| entry.index)
    }
}

impl Group {
    /// The only member of a group that begins anew with everything that a member of it had kept, whether that was
    /// committed or not: who had it acknowledged can be asked no more.
    pub(crate) fn restore_alone(
        id: GroupId,
        kept: KeptMember,
        node: NodeId,
        newest: Option<MemberId>,
        registry: &Registry,
        turn: &mut Turn<'_>,
    ) -> Result<Self, MachineError> {
        let (index, last) = (kept.snapshot.index, kept.last_index());
        let mut machine = *kept.machine;
        let entries: Vec<Entry> = kept.entries.into_iter().map(entry_from_wire).collect();
        let newest_term = entries.last().map_or(kept.snapshot.term, |entry| entry.term);
        let term = kept.vote.term.max(newest_term);
        let hard_state = HardState { term, commit: last, ..HardState::default() };
        let snapshot = snapshot_from_wire(kept.snapshot);
        let log = MemberLog::recovered(snapshot, kept.file, hard_state, kept.before, &entries);
        let bytes = usize::try_from(log.state_bytes()).unwrap_or(0);
        for entry in log.range(index + 1, last) {
            machine.catch_up(&log, entry)?;
        }
        let member = machine.found_anew(node, newest);
        let (voters, state) = (vec![member], machine.snapshot(bytes)?);
        let snapshot = WireSnapshot { index: last, term, voters, learners: Vec::new(), state };
        let config = machine.config().clone();
        let log = MemberLog::new(snapshot_from_wire(snapshot));
        let mut group = Self::new(id, member, registry, config, log, last, turn);
        // Commands that panicked are in the snapshot as what they came to: nothing.
        machine.forget_poisoned(last);
        group.machine = Some(machine);
        group.begin_to_keep(turn);
        group.hold_until_begun();
        group.campaign_alone();
        tracing::warn!(group = %id, %member, last, "a group begins anew with what one of its members had kept");
        Ok(group)
    }

    /// What this member has come to with all that is in its log, if it has come to anything.
    pub(crate) fn keepsake(&self) -> Result<Option<Keepsake>, MachineError> {
        let Some(machine) = &self.machine else { return Ok(None) };
        let (log, applied) = (self.raw.store(), self.applied_index());
        let mut state = machine.snapshot(0)?;
        if log.last() > applied {
            let mut whole =
                Machine::restore(self.id, &self.registry, applied, &state)?.poisoned_like(machine);
            for entry in log.range(applied + 1, log.last()) {
                whole.catch_up(log, entry)?;
            }
            state = whole.snapshot(0)?;
        }
        // What was only heard of in this turn is not in it, and was not acknowledged.
        let last_term =
            Storage::term(log, log.last()).expect("the last entry is in the log, or in its snapshot");
        // Whoever does not vote has acknowledged nothing that counts.
        let votes = self.raw.raft.prs().conf().voters().contains(self.member.0);
        let rank = rank_of(if votes { last_term } else { 0 }, log.last());
        Ok(Some(Keepsake { rank, state }))
    }

    /// The member as it was when it last wrote; what was committed since is applied as raft hands it out again.
    pub(crate) fn recover(id: GroupId, kept: KeptMember, registry: &Registry, turn: &mut Turn<'_>) -> Self {
        let (index, machine) = (kept.snapshot.index, *kept.machine);
        let mut entries: Vec<Entry> = kept.entries.into_iter().map(entry_from_wire).collect();
        if planted!(ForgetNewestEntry) && kept.before.0 + entries.len() as u64 > index {
            entries.pop();
        }
        let last = entries.last().map_or(kept.before.0, |entry| entry.index);
        let written = entries.last().map_or(kept.before.1, |entry| entry.term);
        let hard_state = HardState {
            term: if planted!(ForgetTerm) { written } else { kept.vote.term },
            vote: if planted!(ForgetTerm) || planted!(ForgetVote) { 0 } else { kept.vote.vote },
            commit: kept.vote.commit.clamp(index, last.max(index)),
            ..HardState::default()
        };
        let snapshot = snapshot_from_wire(kept.snapshot);
        let log = MemberLog::recovered(snapshot, kept.file, hard_state, kept.before, &entries);
        let config = machine.config().clone();
        let mut group = Self::new(id, kept.member, registry, config, log, index, turn);
        group.machine = Some(machine);
        group.keeper = Keeper::recovered(kept.durability, &kept.vote, &entries);
        // Whom it promised not to vote, before it went down, nobody knows: it keeps one whole promise, the longest.
        let promise_ms = kept.vote.promise_ms.max(group.config.promise_ms);
        if !planted!(ForgetPromise) {
            group.promise.make_blind(turn.now, Duration::from_millis(promise_ms.into()));
        }
        #[cfg(feature = "sim")]
        group.tell_return(turn.now);
        group.campaign_alone();
        tracing::info!(group = %id, member = %group.member, index, last, "recovered from the disk");
        group
    }
}
