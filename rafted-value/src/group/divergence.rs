//! Whether the members of a group still hold the same state: hashed at one index, compared through the log.
//!
//! Every so many commands the leader writes a *check* into the log. Each member hashes its state when it applies that
//! entry and tells the leader. What a majority of the voters tells is written into the log as the *verdict*, and a member
//! that had another hash there fences itself when it applies the verdict; the leader is no exception. A message that is
//! lost costs one comparison, never a wrong verdict: without a majority there is none.
//!
//! The alternative, a hash in every command's entry, would make every entry cost an encoding of the whole value.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::Entry;

use super::machine::{Machine, MachineError, read_body};
use super::{Group, Turn};
use crate::entry::EntryBody;
use crate::id::MemberId;
use crate::message::{Body, GroupMessage};

/// Kinds of commands that a report names at most.
const KINDS_MAX: usize = 8;

/// A member's state at an index, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct StateHash {
    index: u64,
    hash: u64,
}

/// What a member knows of the comparisons.
#[derive(Default)]
pub(super) struct Divergence {
    /// Commands applied since the newest check.
    commands: u64,
    /// Whether a check of this leader is on its way.
    asked: bool,
    /// This member's state at the newest check.
    own: Option<StateHash>,
    /// What the members told last.
    told: BTreeMap<MemberId, StateHash>,
    /// The newest check that this leader needs to do nothing more about.
    judged: u64,
    /// The newest check at which this member was as the majority.
    agreed: u64,
}

/// What the voters' hashes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Judgement {
    /// Not enough of them are there.
    Open,
    /// A majority has this one.
    Agreed(u64),
    /// No majority can come about any more.
    Split,
}

impl Divergence {
    /// Counts commands that were applied.
    pub(super) fn count(&mut self, commands: usize) {
        self.commands += commands as u64;
    }

    /// Whoever leads begins anew.
    pub(super) fn forget_round(&mut self) {
        self.asked = false;
        self.told.clear();
    }

    fn judge(&self, voters: &[u64], index: u64) -> Judgement {
        let mut counts = BTreeMap::<u64, usize>::new();
        let told = voters.iter().filter_map(|voter| self.told.get(&MemberId(*voter)));
        for told in told.filter(|told| told.index == index) {
            *counts.entry(told.hash).or_default() += 1;
        }
        let majority = voters.len() / 2 + 1;
        let missing = voters.len() - counts.values().sum::<usize>();
        match counts.iter().max_by_key(|(_, count)| **count) {
            Some((hash, count)) if *count >= majority => Judgement::Agreed(*hash),
            Some((_, count)) if count + missing < majority => Judgement::Split,
            _ => Judgement::Open,
        }
    }
}

impl Group {
    /// Moves the comparisons of a group that this member leads on; between two `Ready`s of raft.
    pub(super) fn watch_divergence(&mut self, turn: &Turn<'_>) {
        if self.serving && self.transfer.is_none() {
            self.judge();
            self.ask_for_check(turn);
        }
    }

    fn ask_for_check(&mut self, turn: &Turn<'_>) {
        let limit = turn.limits.divergence_check_commands;
        let due = limit > 0 && self.divergence.commands >= limit && !self.divergence.asked;
        if due && self.raw.raft.prs().iter().count() > 1 {
            self.divergence.asked = self.propose_body(&EntryBody::Check);
        }
    }

    /// Applies an entry of a comparison.
    pub(super) fn apply_comparison(
        &mut self,
        turn: &mut Turn<'_>,
        entry: &Entry,
    ) -> Result<(), MachineError> {
        match read_body(entry)? {
            EntryBody::Check => self.apply_check(turn, entry),
            EntryBody::Verdict { index, hash } => self.apply_verdict(index, hash),
            EntryBody::Commands(_) | EntryBody::Config(_) => {
                Err(MachineError::Entry { index: entry.index, reason: "it is no comparison".into() })
            }
        }
    }

    /// Applies a check: hashes the state and tells the leader.
    fn apply_check(&mut self, turn: &mut Turn<'_>, entry: &Entry) -> Result<(), MachineError> {
        let machine = self.machine.as_ref().expect("a check is applied after the snapshot that precedes it");
        let own = StateHash { index: entry.index, hash: machine.state_hash()? };
        self.divergence.own = Some(own);
        self.divergence.told.retain(|_, told| told.index >= own.index);
        self.divergence.commands = 0;
        self.divergence.asked = false;
        if self.leading.is_some() {
            self.divergence.told.insert(self.member, own);
        } else if let Some(node) = self.leader_node() {
            let (to, term) = (MemberId(self.raw.raft.leader_id), self.raw.raft.term);
            let body = Body::StateHash { index: own.index, hash: own.hash };
            turn.out.send(node, &GroupMessage { group: self.id, from: self.member, to, term, body });
        }
        Ok(())
    }

    /// A member tells the hash of its state, possibly before this leader has applied the check.
    pub(super) fn receive_state_hash(&mut self, message: &GroupMessage, index: u64, hash: u64) {
        if self.leading != Some(message.term) || self.raw.raft.prs().get(message.from.0).is_none() {
            return;
        }
        self.divergence.told.insert(message.from, StateHash { index, hash });
    }

    /// Writes the verdict of the newest check into the log once it is clear.
    fn judge(&mut self) {
        let Some(index) = self.divergence.own.map(|own| own.index) else { return };
        if index <= self.divergence.judged {
            return;
        }
        let voters = self.raw.raft.prs().conf().to_conf_state().voters;
        match self.divergence.judge(&voters, index) {
            Judgement::Open => {}
            Judgement::Agreed(hash) => {
                if self.propose_body(&EntryBody::Verdict { index, hash }) {
                    self.divergence.judged = index;
                }
            }
            Judgement::Split => {
                self.divergence.judged = index;
                metrics::counter!("rafted_value_divergences_undecided_total").increment(1);
                tracing::error!(
                    group = %self.id, index, agreed = self.divergence.agreed, kinds = self.kinds_until(index),
                    "the members' states differ and no majority is alike: nobody knows who is right"
                );
            }
        }
    }

    /// Applies a verdict: who had another state at its index does not go on.
    fn apply_verdict(&mut self, index: u64, hash: u64) -> Result<(), MachineError> {
        match self.divergence.own {
            Some(own) if own.index == index && own.hash != hash => {
                metrics::counter!("rafted_value_members_diverged_total").increment(1);
                let (since, kinds) = (self.divergence.agreed, self.kinds_until(index));
                Err(MachineError::Diverged { index, since, kinds })
            }
            Some(own) if own.index == index => {
                self.divergence.agreed = index;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The kinds of the commands since the members were last alike, as far as the log still has them.
    fn kinds_until(&self, index: u64) -> String {
        let log = self.raw.store();
        let first = (self.divergence.agreed + 1).max(log.first());
        let Some(machine) = self.machine.as_ref().filter(|_| first <= index) else { return String::new() };
        let mut kinds = BTreeSet::new();
        for entry in log.range(first, index) {
            machine.kinds_of(entry, &mut kinds);
            if kinds.len() > KINDS_MAX {
                kinds.pop_last();
            }
        }
        kinds.into_iter().collect::<Vec<_>>().join(", ")
    }
}

impl Machine {
    /// A hash of everything that commands change: the same on every member whose value has one encoding.
    ///
    /// The membership is left out: survivors of a lost majority change theirs beside the log, one after the other.
    fn state_hash(&self) -> Result<u64, MachineError> {
        Ok(twox_hash::XxHash3_64::oneshot(&self.compared_bytes()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(voters: usize, hashes: &[(u64, u64)], expected: Judgement) {
        let mut divergence = Divergence::default();
        for (member, hash) in hashes {
            divergence.told.insert(MemberId(*member), StateHash { index: 5, hash: *hash });
        }
        // What a learner tells, and what is told of another check, counts for nothing.
        divergence.told.insert(MemberId(90), StateHash { index: 5, hash: 7 });
        let voters: Vec<u64> = (1..=voters as u64).collect();
        assert_eq!(divergence.judge(&voters, 5), expected);
        assert_eq!(divergence.judge(&voters, 6), Judgement::Open);
    }

    #[test]
    fn a_majority_of_the_voters_decides_and_nobody_else() {
        check(3, &[], Judgement::Open);
        check(3, &[(1, 7)], Judgement::Open);
        check(3, &[(1, 7), (2, 8)], Judgement::Open);
        check(3, &[(1, 7), (2, 8), (3, 8)], Judgement::Agreed(8));
        check(3, &[(1, 7), (3, 7)], Judgement::Agreed(7));
        check(3, &[(1, 7), (2, 8), (3, 9)], Judgement::Split);
        check(2, &[(1, 7), (2, 8)], Judgement::Split);
        check(4, &[(1, 7), (2, 7), (3, 8)], Judgement::Open);
        check(4, &[(1, 7), (2, 7), (3, 8), (4, 8)], Judgement::Split);
        check(5, &[(1, 1), (2, 2), (3, 3)], Judgement::Open);
        check(5, &[(1, 1), (2, 2), (3, 3), (4, 4)], Judgement::Split);
    }
}
