//! When a member is stepped because time has passed, and what it does then.

use raft::SnapshotStatus;

use super::{Group, Turn};
use crate::env::MonoTime;
use crate::id::MemberId;
use crate::raft::parts_a_heartbeat;

impl Group {
    /// When the group is to be entered among the timers, if it is not there for that time or an earlier one.
    pub(crate) fn enter_timer(&mut self) -> Option<MonoTime> {
        let due = self.next_tick();
        let late = self.entered.is_none_or(|entered| due < entered);
        late.then(|| *self.entered.insert(due))
    }

    /// Its time among the timers has come; false if it was entered for an earlier one since.
    pub(crate) fn leave_timer(&mut self, entered: MonoTime) -> bool {
        self.entered.take_if(|time| *time == entered).is_some()
    }

    /// When this member wants to be stepped even if nothing comes in: for the next heartbeat, or before it to campaign.
    fn next_tick(&self) -> MonoTime {
        if self.leading.is_some() || self.rest.is_quiet() || self.election_deadline >= self.next_tick {
            return self.next_tick;
        }
        self.next_tick.min(self.campaign_instant())
    }

    /// The clock has reached [`next_tick`](Self::next_tick).
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        let beat = turn.now >= self.next_tick;
        if beat {
            self.plan_tick(turn.now);
            self.tick_rest(turn);
        }
        if self.rest.is_quiet() {
            return;
        }
        if beat {
            if !self.spares_heartbeat(turn.now) {
                self.raw.raft.election_elapsed += parts_a_heartbeat(&self.config) - 1;
                self.raw.tick();
            }
            self.retry_snapshots(turn);
            self.press_for_pieces(turn);
            self.watch_transfer(turn);
            self.trim_if_due();
        }
        self.campaign_if_due(turn);
    }

    /// Ticks of all groups of a node fall on the same instants, so that their heartbeats travel together.
    pub(super) fn plan_tick(&mut self, now: MonoTime) {
        let interval = u64::from(self.config.heartbeat_ms) * 1_000_000;
        self.next_tick = MonoTime::from_nanos((now.nanos() / interval + 1) * interval);
    }

    fn retry_snapshots(&mut self, turn: &Turn<'_>) {
        let limit = turn.limits.snapshot_retry;
        let late: Vec<MemberId> = self
            .snapshots_sent
            .iter()
            .filter(|(_, sent)| turn.now.since(**sent) > limit)
            .map(|(member, _)| *member)
            .collect();
        for member in late {
            self.snapshots_sent.remove(&member);
            self.give_up_offer(member);
            self.raw.report_snapshot(member.0, SnapshotStatus::Failure);
        }
    }
}
