//! All that is known of one group: its members' logs and standings, and each invariant's own memory.

use std::collections::BTreeMap;

use rafted_value::sim::{Deed, Standing};
use rafted_value::{MemberId, NodeId};

use super::Clocks;
use super::committed_on_a_quorum::committed_on_a_quorum;
use super::leader_completeness::LeaderCompleteness;
use super::log::Log;
use super::log_matching::LogMatching;
use super::no_lease_beside_a_newer_leader::no_lease_beside_a_newer_leader;
use super::no_step_back::no_step_back;
use super::one_leader_a_term::OneLeaderATerm;
use super::one_vote_a_term::OneVoteATerm;
use super::promises_are_kept::Promised;
use super::rare::{Rare, Scene};
use super::state_machine_safety::StateMachineSafety;
use super::words_are_kept::Words;

/// One group.
#[derive(Default)]
pub(super) struct Chronicle {
    members: BTreeMap<MemberId, Known>,
    matching: LogMatching,
    safety: StateMachineSafety,
    complete: LeaderCompleteness,
    leaders: OneLeaderATerm,
    votes: OneVoteATerm,
    pub(super) rare: Rare,
}

/// One member, its dead nodes included.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Its log as it was last.
    pub(super) log: Option<Log>,
    /// Where it stands, while its node lives.
    pub(super) standing: Option<Standing>,
    pub(super) words: Words,
    pub(super) promised: Promised,
    /// Whether it has done nothing since it stood there.
    pub(super) rests: bool,
}

impl Chronicle {
    /// Takes in what a member did.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn take_in(
        &mut self,
        member: MemberId,
        deed: Deed,
        scene: Scene,
        clocks: &Clocks,
    ) -> Result<(), String> {
        let known = self.members.entry(member).or_default();
        if let Deed::Promises { promise } = deed {
            // So often, and nothing else depends on it.
            known.promised.promises(promise);
            return Ok(());
        }
        if let Deed::Stands(now) = &deed
            && known.rests
            && known.standing.as_ref() == Some(now)
        {
            // All that is checked of it was checked when it came there; a lease only ends with time.
            return Ok(());
        }
        known.rests = matches!(deed, Deed::Stands(_));
        match deed {
            Deed::Begins { index, term, recovered } => {
                let log = Log::from(index, self.matching.begins(index, term)?);
                if recovered {
                    self.rare.note_return(scene);
                } else {
                    if known.log.is_some() || index > 1 {
                        self.rare.note_snapshot(scene);
                    }
                    known.words.is_released_from(&log, index + 1);
                }
                known.log = Some(log);
            }
            Deed::Appends { index, term, digest } => {
                let log = known.log.as_mut().ok_or("appends to a log that never began")?;
                let replaces = index <= log.last();
                let link = log.put(index, term, digest)?;
                if replaces {
                    self.rare.note_log_end_replaced();
                    known.words.is_released_from(log, index);
                }
                self.matching.appends(member, index, link)?;
            }
            Deed::Promises { .. } => {}
            Deed::Returns { promise } => {
                known.promised.comes_back(promise)?;
                let log = known.log.as_ref().ok_or("comes back without a log")?;
                known.words.comes_back(log)?;
                self.matching.comes_back(member, log.last());
            }
            Deed::Votes { term, candidate } => {
                known.words.speaks(term);
                self.votes.votes(member, term, candidate)?;
            }
            // Who has nothing yet may say so.
            Deed::Keeps { index: 0, .. } => {}
            Deed::Keeps { term, index } => {
                known.words.speaks(term);
                let log = known.log.as_ref().ok_or("keeps entries of a log that never began")?;
                known.words.keeps(log, index)?;
            }
            Deed::Stands(standing) => self.stands(member, standing, scene, clocks)?,
            Deed::Ends => known.standing = None,
        }
        Ok(())
    }

    fn stands(
        &mut self,
        member: MemberId,
        now: Standing,
        scene: Scene,
        clocks: &Clocks,
    ) -> Result<(), String> {
        let known = self.members.entry(member).or_default();
        let Known { log: Some(log), words, standing, .. } = known else {
            return Err("stands without a log".into());
        };
        no_step_back(standing.as_ref(), &now)?;
        words.stands(now.term)?;
        let new_commit = self.safety.commits(log, now.commit)?;
        if now.leads && self.leaders.leads(member, now.term)? {
            self.complete.leads(now.term, log, member)?;
            self.rare.note_leader(&now, scene);
        }
        let before = standing.replace(now);
        if let Some((index, link)) = new_commit {
            let voters = standing.as_ref().map_or(&[][..], |now| &now.voters);
            let before = before.as_ref().map_or(voters, |before| &before.voters);
            let memberships = [before.to_vec(), voters.to_vec()];
            committed_on_a_quorum(&self.members, memberships.each_ref().map(Vec::as_slice), index, link)?;
            self.complete.commits(index, link);
            for (leader, known) in &self.members {
                if let (Some(log), Some(standing)) = (&known.log, &known.standing)
                    && standing.leads
                    && standing.term > link.term
                {
                    self.complete.leads(standing.term, log, *leader)?;
                }
            }
        }
        no_lease_beside_a_newer_leader(&self.members, clocks)
    }

    /// A node has ended, and its members with it.
    pub(super) fn node_ends(&mut self, node: NodeId) {
        for known in self.members.values_mut() {
            known.standing.take_if(|standing| standing.node == node);
        }
    }

    /// How many entries it has committed.
    pub(super) fn entries_committed(&self) -> u64 {
        self.safety.count()
    }
}

#[cfg(test)]
pub(super) fn standing(node: u64) -> Standing {
    Standing {
        node: NodeId(node),
        term: 1,
        vote: None,
        leads: false,
        commit: 1,
        applied: 1,
        last: 1,
        voters: Vec::new(),
        lease_end: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: MemberId = MemberId(1);
    const TWO: MemberId = MemberId(2);

    /// Two members of a group of two that have an entry in common.
    fn pair() -> Chronicle {
        let mut chronicle = Chronicle::default();
        for member in [ONE, TWO] {
            see(&mut chronicle, member, Deed::Begins { index: 1, term: 1, recovered: false }).unwrap();
            see(&mut chronicle, member, Deed::Appends { index: 2, term: 2, digest: 5 }).unwrap();
        }
        chronicle
    }

    fn see(chronicle: &mut Chronicle, member: MemberId, deed: Deed) -> Result<(), String> {
        chronicle.take_in(member, deed, Scene::default(), &Clocks::default())
    }

    fn leads(term: u64, commit: u64) -> Deed {
        let voters = vec![ONE, TWO];
        Deed::Stands(Standing { term, leads: true, commit, last: 3, voters, ..standing(1) })
    }

    #[test]
    fn a_commit_that_both_have_is_fine_and_one_that_one_has_is_found() {
        let mut chronicle = pair();
        see(&mut chronicle, ONE, leads(2, 2)).unwrap();
        see(&mut chronicle, ONE, Deed::Appends { index: 3, term: 2, digest: 6 }).unwrap();
        assert!(see(&mut chronicle, ONE, leads(2, 3)).unwrap_err().contains("commits entry 3"));
    }

    /// A learner that has nothing yet answers an append of before the snapshot that it waits for; seed 258 of the engine
    /// once failed over it.
    #[test]
    fn a_member_without_a_log_may_say_that_it_keeps_nothing() {
        let mut chronicle = pair();
        see(&mut chronicle, MemberId(3), Deed::Keeps { term: 2, index: 0 }).unwrap();
        see(&mut chronicle, MemberId(3), Deed::Keeps { term: 2, index: 1 }).unwrap_err();
    }

    #[test]
    fn a_member_that_comes_back_without_what_it_acknowledged_is_found() {
        let mut chronicle = pair();
        see(&mut chronicle, TWO, Deed::Keeps { term: 2, index: 2 }).unwrap();
        chronicle.node_ends(NodeId(1));
        see(&mut chronicle, TWO, Deed::Begins { index: 1, term: 1, recovered: true }).unwrap();
        assert!(
            see(&mut chronicle, TWO, Deed::Returns { promise: Duration::ZERO })
                .unwrap_err()
                .contains("without entry 2")
        );
    }

    #[test]
    fn a_member_that_comes_back_without_its_promise_is_found() {
        let mut chronicle = pair();
        see(&mut chronicle, TWO, Deed::Promises { promise: Duration::from_millis(200) }).unwrap();
        chronicle.node_ends(NodeId(1));
        see(&mut chronicle, TWO, Deed::Begins { index: 1, term: 1, recovered: true }).unwrap();
        let back = Deed::Returns { promise: Duration::from_millis(50) };
        assert!(see(&mut chronicle, TWO, back).unwrap_err().contains("promised"));
    }

    /// A member may hear of a new leader before its first turn has ended; seed 80202 of the stack once failed over it.
    #[test]
    fn what_a_member_came_back_with_may_be_replaced_before_it_stands_anywhere() {
        let mut chronicle = pair();
        see(&mut chronicle, TWO, Deed::Keeps { term: 2, index: 2 }).unwrap();
        chronicle.node_ends(NodeId(1));
        see(&mut chronicle, TWO, Deed::Begins { index: 1, term: 1, recovered: true }).unwrap();
        see(&mut chronicle, TWO, Deed::Appends { index: 2, term: 2, digest: 5 }).unwrap();
        see(&mut chronicle, TWO, Deed::Returns { promise: Duration::ZERO }).unwrap();
        see(&mut chronicle, TWO, Deed::Appends { index: 2, term: 3, digest: 6 }).unwrap();
        see(&mut chronicle, TWO, Deed::Stands(Standing { term: 3, ..standing(1) })).unwrap();
    }

    /// What a leader sends again does not hide that it was lost.
    #[test]
    fn what_was_lost_is_found_though_it_is_sent_again() {
        let mut chronicle = pair();
        see(&mut chronicle, TWO, Deed::Keeps { term: 2, index: 2 }).unwrap();
        see(&mut chronicle, TWO, Deed::Begins { index: 1, term: 1, recovered: true }).unwrap();
        see(&mut chronicle, TWO, Deed::Returns { promise: Duration::ZERO }).unwrap_err();
        see(&mut chronicle, TWO, Deed::Appends { index: 2, term: 2, digest: 5 }).unwrap();
    }
}
