//! Queries: answered by the leader under its lease, or once a round of heartbeats sent after they came is confirmed.

use std::time::Duration;

use bytes::Bytes;

use super::{Group, RETRY_AFTER_MS, Turn};
use crate::env::MonoTime;
use crate::error::QueryError;
use crate::id::MemberId;
use crate::lease::lease_end;
use crate::request::Freshness;
use crate::waiter::Waiter;

/// A query that waits for its turn.
pub(super) struct Read {
    /// When it came: a round sent at or after this confirms it.
    arrived: MonoTime,
    /// What was committed when it came, which must be applied before it is answered.
    index: u64,
    payload: Bytes,
    pub(super) waiter: Waiter<Result<Bytes, QueryError>>,
}

impl Group {
    /// Takes in a query; a stale one is answered at once, another when the turn ends or later.
    pub(crate) fn query(
        &mut self,
        turn: &mut Turn<'_>,
        freshness: Freshness,
        payload: Bytes,
        waiter: Waiter<Result<Bytes, QueryError>>,
    ) {
        if freshness == Freshness::Stale {
            let answer = match &self.machine {
                Some(machine) => machine.query(&payload),
                None => Err(QueryError::NoSuchGroup(self.id)),
            };
            turn.out.query(waiter, answer);
        } else if self.leading.is_none() {
            let leader = self.leader_to_ask();
            turn.out.query(waiter, Err(QueryError::NotLeader { group: self.id, leader }));
        } else if self.waiting >= turn.limits.group_waiting_max {
            turn.out.query(waiter, Err(QueryError::Overloaded { retry_after_ms: RETRY_AFTER_MS }));
        } else {
            self.waiting += 1;
            let index = self.raw.raft.raft_log.committed;
            self.reads.push_back(Read { arrived: turn.now, index, payload, waiter });
        }
    }

    /// The send time of the newest round that a quorum has acknowledged, once this leader serves.
    fn confirmed(&self, now: MonoTime) -> Option<MonoTime> {
        if !self.serving {
            return None;
        }
        let voters = self.raw.raft.prs().conf().voters().ids();
        self.rounds.confirmed(self.member, voters.iter().map(MemberId), now)
    }

    /// When the lease of this leader ends, or has ended; `None` where it has none to rest on.
    pub(super) fn lease_end(&self, now: MonoTime) -> Option<MonoTime> {
        let promise = Duration::from_millis(self.config.promise_ms.into());
        let margin = Duration::from_millis(self.config.clock_drift_margin_ms.into());
        let confirmed = self.confirmed(now).filter(|round| self.rounds.gives_lease(*round))?;
        let may = self.transfer.is_none() || planted!(KeepLeaseInTransfer);
        may.then(|| lease_end(confirmed, promise, margin))
    }

    /// Whether this leader may answer alone at `now`.
    pub(super) fn leased(&self, now: MonoTime) -> bool {
        self.lease_end(now).is_some_and(|end| now < end)
    }

    /// Sends a round of heartbeats if queries wait that neither the lease nor a round on its way will confirm.
    pub(super) fn ask_for_confirmation(&mut self, turn: &Turn<'_>) {
        let Some(newest) = self.reads.back().map(|read| read.arrived) else { return };
        // A round of its own would end the exemption of a transfer under way; the next heartbeat will do.
        if self.serving
            && self.transfer.is_none()
            && !self.leased(turn.now)
            && self.rounds.newest() < Some(newest)
        {
            self.raw.ping();
        }
    }

    /// Answers the queries that may be answered now.
    pub(super) fn serve_reads(&mut self, turn: &mut Turn<'_>) {
        if self.reads.is_empty() {
            return;
        }
        let confirmed = match self.confirmed(turn.now) {
            None if planted!(SkipLeaseCheck) && self.serving => turn.now,
            Some(confirmed) => confirmed,
            None => return,
        };
        let leased = self.leased(turn.now) || planted!(SkipLeaseCheck);
        let applied = self.raw.raft.raft_log.applied;
        let Some(machine) = &self.machine else { return };
        let mut answered = 0;
        while let Some(read) = self.reads.front() {
            if (!leased && read.arrived > confirmed) || read.index > applied {
                break;
            }
            let answer = machine.answer(&read.payload);
            let read = self.reads.pop_front().expect("there is a front");
            self.waiting -= 1;
            answered += 1;
            turn.out.query(read.waiter, answer);
        }
        if leased {
            metrics::counter!("rafted_value_reads_leased_total").increment(answered);
        } else {
            metrics::counter!("rafted_value_reads_confirmed_total").increment(answered);
        }
    }
}
