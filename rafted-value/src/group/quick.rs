//! Heartbeats of a group in which nothing happens, without the way through raft.
//!
//! Thousands of idle groups spend their time on these. What is done here is what raft would do with the same message,
//! no more (`handle_heartbeat` and `handle_heartbeat_response` of raft 0.7); whatever else might follow from it takes
//! the long way.

use std::time::Duration;

use raft::{INVALID_ID, INVALID_INDEX, ProgressState, StateRole};

use super::Group;
use crate::env::MonoTime;
use crate::id::NodeId;
use crate::message::{Body, GroupMessage};
use crate::outputs::Outputs;

impl Group {
    /// Deals with a message that changes nothing but timers; false if it must take the long way.
    pub(crate) fn receive_quick(
        &mut self,
        message: &GroupMessage,
        now: MonoTime,
        out: &mut Outputs,
        from: NodeId,
    ) -> bool {
        if self.touched || self.rest.is_quiet() || message.term != self.raw.raft.term {
            return false;
        }
        match message.body {
            Body::Beat { commit, round, promise_ms } => {
                let accepted = self.beat_quick(message, commit, round, promise_ms, now);
                if accepted {
                    let body =
                        Body::BeatAck { commit: self.raw.raft.raft_log.committed, round: self.accepted.1 };
                    let (member, term) = (self.member, message.term);
                    let ack = GroupMessage { group: self.id, from: member, to: message.from, term, body };
                    #[cfg(feature = "sim")]
                    self.tell_sent(&ack);
                    out.send(from, &ack);
                }
                accepted
            }
            Body::BeatAck { commit, round } => self.beat_ack_quick(message, commit, round),
            _ => false,
        }
    }

    /// A beat of the leader that this member follows, with nothing new to commit.
    fn beat_quick(
        &mut self,
        message: &GroupMessage,
        commit: u64,
        round: u64,
        promise_ms: u32,
        now: MonoTime,
    ) -> bool {
        let plain = self.commit_cap().is_none() && self.bereaved.is_none();
        let raft = &mut self.raw.raft;
        let idle = raft.state == StateRole::Follower
            && message.from.0 != INVALID_ID
            && raft.leader_id == message.from.0
            && raft.pending_request_snapshot == INVALID_INDEX
            && commit <= raft.raft_log.committed
            && self.accepted.0 == message.term
            && self.keeper.may_answer(message.term, promise_ms)
            && plain;
        if !idle {
            return false;
        }
        raft.election_elapsed = 0;
        self.promise.make(now, Duration::from_millis(promise_ms.into()));
        self.accepted.1 = self.accepted.1.max(round);
        // As long a wait as was drawn last, counted from now: a new draw is for new elections.
        self.election_deadline = now + self.election_wait;
        true
    }

    /// The acknowledgement of a follower that holds everything, with no query waiting for it.
    fn beat_ack_quick(&mut self, message: &GroupMessage, commit: u64, round: u64) -> bool {
        if self.leading != Some(message.term) || !self.reads.is_empty() || self.spreading.is_some() {
            return false;
        }
        let raft = &mut self.raw.raft;
        let last = raft.raft_log.last_index();
        let Some(progress) = raft.mut_prs().get_mut(message.from.0) else { return false };
        let idle = progress.state == ProgressState::Replicate
            && progress.matched == last
            && progress.pending_request_snapshot == INVALID_INDEX
            && !progress.ins.full();
        if !idle {
            return false;
        }
        progress.update_committed(commit);
        progress.recent_active = true;
        progress.resume();
        self.rounds.acknowledge(message.from, MonoTime::from_nanos(round));
        true
    }
}
