//! A member's view of its group, for people and for the layers above.

use std::time::Duration;

use raft::StateRole;

use super::{Group, Machine};
use crate::env::MonoTime;
use crate::id::{MemberId, NodeId};
use crate::status::{GroupStatus, MemberStatus, Role};

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Group {
    /// How far the state has come: raft counts a snapshot as applied once the disk has it.
    pub(super) fn applied_index(&self) -> u64 {
        self.raw.raft.raft_log.applied.max(self.raw.store().snapshot_index())
    }

    /// The newest term that it knows.
    pub(crate) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// What this member knows of its group at `now`.
    pub(crate) fn status(&self, now: MonoTime) -> GroupStatus {
        let raft = &self.raw.raft;
        GroupStatus {
            group: self.id,
            data: self.machine.as_ref().map_or(String::new(), |machine| machine.data_name().to_owned()),
            member: self.member,
            role: match raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            },
            term: raft.term,
            leader: self.leader_node(),
            ready: self.is_leader() && self.serving,
            leased: self.leased(now),
            members: self.member_statuses(),
            commit_index: raft.raft_log.committed,
            applied_index: self.applied_index(),
            last_index: raft.raft_log.last_index(),
            snapshot_index: self.raw.store().snapshot_index(),
            log_bytes: self.raw.store().bytes(),
            session_replies: self.machine.as_ref().map_or(0, Machine::session_replies),
            config: self.config.clone(),
            durability: self.keeper.level(),
            fenced: None,
            lease_left_ms: self.lease_end(now).filter(|end| now < *end).map(|end| ms(end.since(now))),
            promise_left_ms: ms(self.promise.end().since(now)),
            unresponsive: self.unresponsive(now),
            transfer_to: self.successor(),
            change_under_way: self.leading.is_some() && self.change_under_way(),
            waiting: self.waiting as u64,
            quiet: self.rest.is_quiet(),
            snapshot_bytes: self.raw.store().state_bytes(),
            snapshot_held_bytes: self.held_bytes(),
        }
    }

    /// What it holds of encoded states.
    fn held_bytes(&self) -> u64 {
        let log = self.raw.store();
        let index = log.snapshot_index();
        let outgoing = self.outgoing.values().map(|outgoing| outgoing.held_bytes(index));
        let incoming = self.incoming_snapshot.as_ref().map_or(0, |incoming| incoming.held_bytes());
        let rebuilt = self.machine.as_ref().map_or(0, Machine::held_bytes);
        log.snapshot_ref().data.len() as u64 + outgoing.sum::<u64>() + incoming + rebuilt
    }

    fn unresponsive(&self, now: MonoTime) -> Vec<NodeId> {
        let Some(machine) = self.machine.as_ref().filter(|_| self.leading.is_some()) else {
            return Vec::new();
        };
        let silent = machine.nodes().iter().filter(|(member, _)| !self.hears(now, **member));
        silent.map(|(_, node)| *node).collect()
    }

    fn member_statuses(&self) -> Vec<MemberStatus> {
        let Some(machine) = &self.machine else { return Vec::new() };
        let progress = self.raw.raft.prs();
        let status = |(&member, &node): (&MemberId, _)| {
            let known = progress.get(member.0).filter(|_| self.is_leader());
            MemberStatus {
                member,
                node,
                voter: progress.conf().voters().contains(member.0),
                matched: known.map(|progress| progress.matched),
                responsive: known.map(|progress| member == self.member || progress.recent_active),
            }
        };
        machine.nodes().iter().map(status).collect()
    }
}
