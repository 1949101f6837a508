//! What a member keeps on the disk of its node, and what it may not say before it is there.
//!
//! Raft hands out, with each `Ready`, what must be kept and the messages that must not leave before it is. The member
//! writes records for the first and holds the second; [`Group::kept`] lets them go. Votes, acknowledged entries and
//! applied entries thus never run ahead of the disk, while a leader replicates an entry and writes it at the same time
//! (Raft dissertation, section 10.2.1), in a term that the disk knows.
//!
//! An entry never comes to the disk without the commit index that this member knew with it. A leader proposes a change
//! of the membership only once the one before it is applied, so a log that holds a change knows that the one before is
//! committed; and raft refuses to campaign while a committed change is not applied. A restarted member can thus be one
//! change behind at most, and any two majorities one change apart meet.
//!
//! No member tells anybody that a change is committed before its own disk knows it. A member that was removed ends when
//! it hears of it, and a leader that has forgotten it by then would ask for its vote for ever. Followers write it down at
//! once as well, so that they know it even where the leader does not come back, and what a leader hears of them is true
//! after a loss of power.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

use super::change::Settled;
use super::{Group, Turn};
use crate::config::Durability;
use crate::error::GroupError;
use crate::id::MemberId;
use crate::outputs::SnapshotJob;
use crate::raft::convert::snapshot_to_wire;
use crate::store::{KeptFile, Place, Record, VoteRecord};
use crate::waiter::Waiter;

/// A snapshot of no more than this many bytes is a record of the log; a larger one is a file of its own.
const SNAPSHOT_INLINE_MAX: usize = 64 << 10;

/// The member's dealings with the disk.
pub(super) struct Keeper {
    pub(super) level: Durability,
    pub(super) stage: Stage,
    /// The number of the newest `Ready`.
    newest: u64,
    /// Readies that are not on the disk yet, in order.
    pub(super) on_their_way: VecDeque<OnItsWay>,
    /// The newest term of which it is known that the disk has it.
    pub(super) kept_term: u64,
    /// The longest promise that was asked for.
    pub(super) promise_ms: u32,
    /// No record tells of it yet.
    pub(super) promise_grew: bool,
    /// The longest promise of which it is known that the disk has it.
    kept_promise_ms: u32,
    /// A snapshot of our own whose state is being written to its file.
    writing: Option<Snapshot>,
    /// Changes of the membership in the log of which the disk does not know that they are committed, in order.
    changes: VecDeque<u64>,
    /// Who waits for the beginning: of the group, or of a member whose group was changed by force.
    founder: Option<Waiter<Result<MemberId, GroupError>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Nothing is on the disk, and nothing has to be.
    Nothing,
    /// The snapshot that the member begins with is being written to its file.
    Installing { index: u64 },
    /// The record that the member begins with is on its way, after the `Ready` of this number, in this term and with this
    /// promise.
    Beginning { number: u64, term: u64, promise_ms: u32 },
    /// The member begins with what is on the disk.
    Begun,
}

pub(super) struct OnItsWay {
    pub(super) number: u64,
    term: u64,
    /// The longest promise that its record tells of.
    promise_ms: u32,
    messages: Vec<Message>,
    /// Whether it waits for the disk itself, not only for those before it.
    recorded: bool,
    /// Whether it starts the member over.
    restored: bool,
    /// What the disk then knows to be committed.
    commit: u64,
    /// Who is told of that.
    change: Option<Settled>,
}

/// What one `Ready` brought that must be kept.
pub(super) struct Brought<'a> {
    pub(super) number: u64,
    /// A new term or vote, entries or a snapshot.
    pub(super) must_sync: bool,
    /// The member starts over from a leader's snapshot.
    pub(super) restored: bool,
    pub(super) entries: &'a [Entry],
    /// A change of the membership is applied with it, which is written down then.
    pub(super) changes: bool,
}

impl Keeper {
    /// A member of which nothing is on the disk.
    pub(super) fn nothing() -> Self {
        Self {
            level: Durability::Memory,
            stage: Stage::Nothing,
            newest: 0,
            on_their_way: VecDeque::new(),
            kept_term: 0,
            promise_ms: 0,
            promise_grew: false,
            kept_promise_ms: 0,
            writing: None,
            changes: VecDeque::new(),
            founder: None,
        }
    }

    /// A member that was read from the disk, with these entries.
    pub(super) fn recovered(level: Durability, vote: &VoteRecord, entries: &[Entry]) -> Self {
        let mut keeper = Self {
            level,
            stage: Stage::Begun,
            kept_term: vote.term,
            promise_ms: vote.promise_ms,
            kept_promise_ms: vote.promise_ms,
            ..Self::nothing()
        };
        keeper.note_changes(entries);
        keeper.note_commit(vote.commit);
        keeper
    }

    /// Notes the changes of the membership among entries that replace what the log had from the first of them on.
    fn note_changes(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.changes.back().is_some_and(|change| *change >= first.index) {
            self.changes.pop_back();
        }
        let changes = entries.iter().filter(|entry| entry.get_entry_type() != EntryType::EntryNormal);
        self.changes.extend(changes.map(|entry| entry.index));
    }

    /// The disk knows that all up to `commit` is committed.
    fn note_commit(&mut self, commit: u64) {
        while self.changes.front().is_some_and(|change| *change <= commit) {
            self.changes.pop_front();
        }
    }

    /// What is kept of this member in fact.
    pub(super) fn level(&self) -> Durability {
        self.level
    }

    /// Whether what raft hands out goes by way of the disk.
    pub(super) fn is_slow(&self) -> bool {
        match self.stage {
            Stage::Nothing => false,
            Stage::Installing { .. } | Stage::Beginning { .. } => true,
            Stage::Begun => self.level != Durability::Memory,
        }
    }

    /// Whether a snapshot that the member starts over from must be kept.
    pub(super) fn would_begin(&self, keeps: bool) -> bool {
        keeps && !(self.stage == Stage::Begun && self.level == Durability::Memory)
    }

    /// Whether all that was handed out is on the disk, or need not be.
    pub(super) fn is_settled(&self) -> bool {
        self.on_their_way.is_empty() && matches!(self.stage, Stage::Nothing | Stage::Begun)
    }

    /// Notes what a leader asks for; the disk must know of a longer promise than any before.
    pub(super) fn note_promise(&mut self, promise_ms: u32) {
        if self.is_slow() && promise_ms > self.promise_ms {
            (self.promise_ms, self.promise_grew) = (promise_ms, true);
        }
    }

    /// The longest promise that was asked for.
    #[cfg(feature = "sim")]
    pub(super) fn promised_ms(&self) -> u32 {
        self.promise_ms
    }

    /// Whether a beat of this term and promise may be answered while other things are on their way.
    pub(super) fn may_answer(&self, term: u64, promise_ms: u32) -> bool {
        !self.is_slow() || (term == self.kept_term && promise_ms.max(self.promise_ms) <= self.kept_promise_ms)
    }
}

impl Group {
    /// Begins to keep a member on this host's disk, with all that it has now; nothing it says leaves before that is
    /// done. Does nothing on a host without a disk.
    pub(super) fn begin_to_keep(&mut self, turn: &mut Turn<'_>) {
        if !self.keeper.would_begin(turn.keeps) {
            return;
        }
        self.keeper.level = self.config.durability;
        self.keeper.promise_ms = self.keeper.promise_ms.max(self.config.promise_ms);
        let snapshot = self.raw.store().snapshot_ref();
        let index = snapshot.get_metadata().index;
        if self.keeper.level == Durability::Memory || snapshot.data.len() <= SNAPSHOT_INLINE_MAX {
            self.write_beginning(turn);
        } else {
            self.keeper.stage = Stage::Installing { index };
            let snapshot = snapshot_to_wire(snapshot.clone());
            turn.out.snapshots.push(SnapshotJob { group: self.id, member: self.member, snapshot });
        }
    }

    /// A first member says nothing before the disk knows of it. What it said as another one that was founded with it would be
    /// forgotten by one that comes back and is founded once more, with the same id.
    pub(super) fn hold_until_begun(&mut self) {
        if let Stage::Beginning { number, term, promise_ms } = self.keeper.stage {
            let commit = self.raw.store().hard_state().commit;
            self.keeper.on_their_way.push_back(OnItsWay {
                number,
                term,
                promise_ms,
                messages: Vec::new(),
                recorded: true,
                restored: false,
                commit,
                change: None,
            });
        }
    }

    /// Writes down what one `Ready` brought, and holds its messages until it is kept.
    pub(super) fn keep(&mut self, turn: &mut Turn<'_>, brought: Brought<'_>, messages: Vec<Message>) {
        if brought.restored {
            self.keeper.changes.clear();
        }
        if self.keeper.level != Durability::Memory {
            self.keeper.note_changes(brought.entries);
        }
        let messages = self.send_what_may_go(turn, messages);
        let Brought { number, must_sync, restored, entries, changes } = brought;
        let (term, commit) = (self.raw.store().hard_state().term, self.raw.store().hard_state().commit);
        self.keeper.newest = number;
        let new = must_sync || !entries.is_empty() || self.keeper.promise_grew;
        let written = new && self.keeper.level != Durability::Memory;
        let installs = matches!(self.keeper.stage, Stage::Installing { .. });
        let recorded = restored || installs || written || (changes && self.writes_changes());
        if !recorded && self.keeper.on_their_way.is_empty() {
            self.send(turn, messages);
            self.raw.on_persist_ready(number);
            return;
        }
        self.keeper.on_their_way.push_back(OnItsWay {
            number,
            term,
            promise_ms: self.keeper.promise_ms,
            messages,
            recorded,
            restored,
            commit,
            change: None,
        });
        if restored {
            self.begin_to_keep(turn);
        } else if written && !installs {
            // What installs writes a beginning that holds this as well.
            self.write_append(turn, number, entries);
        }
    }

    /// Whether a change of the membership is written down when it is applied.
    fn writes_changes(&self) -> bool {
        self.keeper.is_slow() && self.keeper.level != Durability::Memory
    }

    /// A change of the membership at `index` is applied: the disk is to know that it is committed before anybody else is
    /// told, and whoever waits for it.
    pub(super) fn keep_change(&mut self, turn: &mut Turn<'_>, index: u64, change: Option<Settled>) {
        if !self.writes_changes() {
            if let Some(settled) = change {
                self.answer_change(turn, settled);
            }
            return;
        }
        let (term, commit) = (self.raw.store().hard_state().term, self.raw.store().hard_state().commit);
        debug_assert!(commit >= index, "an applied change is committed");
        // The `Ready` that brought it goes into the same batch of records, and is acknowledged with it.
        let number = self.keeper.newest;
        let ready = OnItsWay {
            number,
            term,
            promise_ms: self.keeper.promise_ms,
            messages: Vec::new(),
            recorded: true,
            restored: false,
            commit,
            change,
        };
        self.keeper.on_their_way.push_back(ready);
        if !matches!(self.keeper.stage, Stage::Installing { .. }) {
            self.write_append(turn, number, &[]);
        }
    }

    /// The newest commit index that others may be told.
    pub(super) fn commit_cap(&self) -> Option<u64> {
        self.keeper.changes.front().map(|change| change - 1)
    }

    /// Acknowledgements of a leader's beats promise nothing that the disk must know, if it knows their term: a slow disk
    /// does not cost the leader its lease.
    fn send_what_may_go(&mut self, turn: &mut Turn<'_>, messages: Vec<Message>) -> Vec<Message> {
        let may_go = |message: &Message| {
            let answers = message.get_msg_type() == MessageType::MsgHeartbeatResponse;
            (answers && self.keeper.may_answer(message.term, 0)) || planted!(AcknowledgeBeforeDisk)
        };
        let (now, later): (Vec<Message>, Vec<Message>) = messages.into_iter().partition(may_go);
        self.send(turn, now);
        later
    }

    /// Sends what a leader may say beside the writing of what it says, and gives what it may not: anything in a term that the
    /// disk does not know yet. One that needed others' votes has written its term before it asked for them. One that needed
    /// only its own has not; without the term it would come back as the leader of the same term once more, with other entries
    /// under the same numbers, and learners that have the first ones could not tell.
    pub(super) fn send_in_a_kept_term(
        &mut self,
        turn: &mut Turn<'_>,
        messages: Vec<Message>,
    ) -> Vec<Message> {
        if !self.keeper.is_slow() {
            self.send(turn, messages);
            return Vec::new();
        }
        let kept_term = self.keeper.kept_term;
        // What it said as a follower, just before it became the only voter and so the leader, is no leader's word.
        let is_of_a_leader = |message: &Message| {
            let kind = message.get_msg_type();
            !matches!(kind, MessageType::MsgAppendResponse | MessageType::MsgRequestVoteResponse)
        };
        let may_go = |message: &Message| message.term <= kept_term && is_of_a_leader(message);
        let (now, later) = messages.into_iter().partition(may_go);
        self.send(turn, now);
        later
    }

    /// The disk has everything up to the `Ready` of this number; where it `begins`, the record that the member begins with.
    pub(crate) fn kept(&mut self, turn: &mut Turn<'_>, number: u64, begins: bool) {
        if let Stage::Beginning { number: last, term, promise_ms } = self.keeper.stage
            && begins
            && number >= last
        {
            self.keeper.stage = Stage::Begun;
            self.keeper.kept_term = term;
            self.keeper.kept_promise_ms = self.keeper.kept_promise_ms.max(promise_ms);
            // A removal by force that came meanwhile is not in it, but in the one that follows.
            if let Some(waiter) = self.keeper.founder.take_if(|_| !self.membership_forced) {
                turn.out.member(waiter, Ok(self.member));
            }
        }
        self.let_go(turn, number);
        self.campaign_alone();
    }

    fn let_go(&mut self, turn: &mut Turn<'_>, number: u64) {
        let (mut newest, capped) = (None, self.commit_cap());
        while let Some(first) = self.keeper.on_their_way.front() {
            if first.number > number && first.recorded {
                break;
            }
            let first = self.keeper.on_their_way.pop_front().expect("there is a front");
            newest = Some(first.number);
            self.keeper.kept_term = first.term;
            if first.recorded {
                self.keeper.note_commit(first.commit);
                self.keeper.kept_promise_ms = self.keeper.kept_promise_ms.max(first.promise_ms);
            }
            if let Some(settled) = first.change {
                self.answer_change(turn, settled);
            }
            self.send(turn, first.messages);
        }
        if let Some(newest) = newest {
            self.raw.on_persist_ready(newest);
            self.note_applied();
        }
        // Not as `leading` says: earlier in this turn another may have been given the vote.
        if self.is_leader() && capped.is_some() && self.commit_cap() != capped {
            // Nobody was told, and whoever waits for the change waits until enough of them know it.
            self.raw.raft.bcast_append();
        }
    }

    /// Tells raft what is applied, which a snapshot is only once the disk has it.
    pub(super) fn note_applied(&mut self) {
        if !self.keeper.on_their_way.iter().any(|ready| ready.restored) {
            self.raw.advance_apply();
        }
    }

    /// A snapshot is in its file, and is not held in memory any more.
    pub(crate) fn snapshot_kept(&mut self, turn: &mut Turn<'_>, file: KeptFile) {
        let index = file.meta().index;
        if self.keeper.stage == (Stage::Installing { index }) {
            self.raw.mut_store().leave_state_to(file);
            self.write_beginning(turn);
        } else if let Some(snapshot) = self.keeper.writing.take_if(|own| own.get_metadata().index == index) {
            self.adopt_snapshot(turn, snapshot, Some(file));
        }
    }

    /// Replaces the snapshot by a newer one of our own, when that is where it has to be.
    pub(super) fn take_over_snapshot(&mut self, turn: &mut Turn<'_>, mut snapshot: Snapshot) {
        if !self.keeper.is_slow() {
            self.compact_log(snapshot, None);
        } else if snapshot.data.len() <= SNAPSHOT_INLINE_MAX {
            self.adopt_snapshot(turn, snapshot, None);
        } else {
            let whole = snapshot_to_wire(snapshot.clone());
            turn.out.snapshots.push(SnapshotJob { group: self.id, member: self.member, snapshot: whole });
            // Whoever writes it is the last to hold it.
            snapshot.data = Bytes::new();
            self.keeper.writing = Some(snapshot);
        }
    }

    /// Begins with a snapshot of our own that says what the log does not.
    pub(super) fn begin_anew(&mut self, turn: &mut Turn<'_>, snapshot: Snapshot) {
        self.compact_log(snapshot, None);
        if self.keeper.is_slow() {
            self.begin_to_keep(turn);
        }
    }

    /// Whether a snapshot may be taken now: one at a time, and none beside one that came from the leader.
    pub(super) fn may_take_snapshot(&self) -> bool {
        self.keeper.writing.is_none()
            && !self.encoding
            && matches!(self.keeper.stage, Stage::Nothing | Stage::Begun)
    }

    fn adopt_snapshot(&mut self, turn: &mut Turn<'_>, snapshot: Snapshot, file: Option<KeptFile>) {
        if !self.is_newer(snapshot.get_metadata().index) {
            // A leader's newer one has overtaken it.
            return;
        }
        self.compact_log(snapshot, file);
        self.keep_compacted(turn);
    }

    fn keep_compacted(&self, turn: &mut Turn<'_>) {
        let record = Record::Compacted {
            group: self.id,
            member: self.member,
            snapshot: self.kept_snapshot(),
            before: Place::of(self.raw.store().before()),
            vote: self.vote_record(),
            durability: self.keeper.level,
        };
        // Nobody waits for it; whatever waits for the disk later comes after it in the log.
        turn.out.keep(record, None);
    }

    /// Has no entry kept behind a snapshot: behind the next one, where anything was applied since the last.
    pub(super) fn shrink(&mut self, turn: &mut Turn<'_>) {
        let log = self.raw.store();
        let (index, applied) = (log.snapshot_index(), self.raw.raft.raft_log.applied);
        if applied > index || log.is_damaged() || !self.may_take_snapshot() || log.before().0 >= index {
            return log.shrink();
        }
        let (snapshot, file) = (log.snapshot_ref().clone(), log.file().cloned());
        self.raw.mut_store().compact(snapshot, file, index);
        self.keep_compacted(turn);
    }

    /// Whether this member must not go on once the disk has failed: one that waits for its state could not begin with it.
    pub(crate) fn is_kept(&self) -> bool {
        self.keeper.is_slow() || self.machine.is_none()
    }

    /// Tells `waiter` once the group is founded for good.
    pub(crate) fn answer_founder(
        &mut self,
        turn: &mut Turn<'_>,
        waiter: Waiter<Result<MemberId, GroupError>>,
    ) {
        if self.keeper.stage == Stage::Nothing || self.keeper.stage == Stage::Begun {
            turn.out.member(waiter, Ok(self.member));
        } else {
            self.keeper.founder = Some(waiter);
        }
    }

    /// Tells `waiter` that a member was removed by force, once the disk knows it too.
    pub(super) fn answer_forced(
        &mut self,
        turn: &mut Turn<'_>,
        member: MemberId,
        waiter: Waiter<Result<MemberId, GroupError>>,
    ) {
        if self.keeper.is_slow() {
            if let Some(earlier) = self.keeper.founder.replace(waiter) {
                turn.out.member(earlier, Err(GroupError::Unknown(self.id)));
            }
        } else {
            turn.out.member(waiter, Ok(member));
        }
    }

    /// Whoever waits for the beginning is told that nobody knows.
    pub(super) fn give_up_founding(&mut self, turn: &mut Turn<'_>) {
        let changes = self.keeper.on_their_way.drain(..).filter_map(|ready| ready.change);
        let waiters = changes.map(|settled| settled.waiter).chain(self.keeper.founder.take());
        for waiter in waiters {
            turn.out.member(waiter, Err(GroupError::Unknown(self.id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A longer promise was acknowledged once its record was handed over: a member that was restarted before the disk had it
    /// kept the shorter one, while its leader relied on the longer.
    #[test]
    fn a_longer_promise_is_acknowledged_once_the_disk_has_it() {
        let vote = VoteRecord { term: 3, vote: 1, commit: 0, promise_ms: 200 };
        let mut keeper = Keeper::recovered(Durability::Fsync, &vote, &[]);
        assert!(keeper.may_answer(3, 200));
        keeper.note_promise(5000);
        assert!(!keeper.may_answer(3, 5000) && !keeper.may_answer(3, 0));
        // The record that tells of it is on its way.
        keeper.promise_grew = false;
        assert!(!keeper.may_answer(3, 5000) && !keeper.may_answer(3, 0));
        keeper.kept_promise_ms = 5000;
        assert!(keeper.may_answer(3, 5000));
    }
}
