//! What a member tells a simulation's watcher of what it does.

use std::time::Duration;

use raft::eraftpb::Entry;
use twox_hash::XxHash3_64;

use super::Group;
use crate::env::MonoTime;
use crate::id::{MemberId, NodeId};
use crate::message::{Body, GroupMessage};
use crate::sim::watch::{Deed, Standing, is_watched, tell};

fn digest(entry: &Entry) -> u64 {
    let kind = entry.get_entry_type() as u64;
    let context = XxHash3_64::oneshot_with_seed(kind, &entry.context);
    XxHash3_64::oneshot_with_seed(context, &entry.data)
}

impl Group {
    fn tell(&self, deed: Deed) {
        tell(self.id, self.member, deed);
    }

    /// The log is another one than before.
    pub(super) fn tell_log(&self) {
        self.tell_whole_log(false);
    }

    /// It is back from its disk.
    pub(super) fn tell_return(&self, now: MonoTime) {
        self.tell_whole_log(true);
        self.tell(Deed::Returns { promise: self.promise.end().since(now) });
    }

    fn tell_whole_log(&self, recovered: bool) {
        if is_watched() {
            let (index, term) = self.raw.store().before();
            self.tell(Deed::Begins { index, term, recovered });
            self.raw.store().all().for_each(|entry| self.tell_entry(entry));
        }
    }

    pub(super) fn tell_appended(&self, entries: &[Entry]) {
        if is_watched() {
            entries.iter().for_each(|entry| self.tell_entry(entry));
        }
    }

    fn tell_entry(&self, entry: &Entry) {
        self.tell(Deed::Appends { index: entry.index, term: entry.term, digest: digest(entry) });
    }

    /// A message leaves.
    pub(super) fn tell_sent(&self, message: &GroupMessage) {
        match message.body {
            Body::Vote { pre: false, .. } | Body::TransferVote { .. } => {
                self.tell(Deed::Votes { term: message.term, candidate: self.member });
            }
            Body::VoteAck { pre: false, reject: false, .. } => {
                self.tell(Deed::Votes { term: message.term, candidate: message.to });
            }
            Body::BeatAck { round: 1.., .. } | Body::RestAck { round: 1.., .. } => {
                let promise = Duration::from_millis(self.keeper.promised_ms().into());
                self.tell(Deed::Promises { promise });
            }
            // raft answers a leader of an earlier term with the index 0, which acknowledges nothing. What waited for the disk
            // while a later leader came tells the earlier one what was so in its term, and may have been replaced since.
            Body::AppendAck { index: index @ 1.., reject: false, .. }
                if message.term >= self.raw.raft.term =>
            {
                self.tell(Deed::Keeps { term: message.term, index });
            }
            _ => {}
        }
    }

    /// A turn has ended on the member's node.
    pub(crate) fn tell_standing(&self, node: NodeId, now: MonoTime) {
        if !is_watched() || self.machine.is_none() {
            return;
        }
        let raft = &self.raw.raft;
        let mut voters: Vec<MemberId> = raft.prs().conf().voters().ids().iter().map(MemberId).collect();
        voters.sort_unstable();
        self.tell(Deed::Stands(Standing {
            node,
            term: raft.term,
            vote: (raft.vote != 0).then_some(MemberId(raft.vote)),
            leads: self.leading == Some(raft.term),
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            last: self.raw.store().last(),
            voters,
            lease_end: self.lease_end(now),
        }));
    }

    pub(super) fn tell_end(&self) {
        self.tell(Deed::Ends);
    }
}
