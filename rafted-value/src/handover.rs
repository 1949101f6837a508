//! A node that is about to stop gives its leaderships away first, so that nobody waits for an election.

use std::time::Duration;

use futures_util::future::join_all;

use crate::env::timeout;
use crate::host::Host;
use crate::id::MemberId;
use crate::status::{GroupStatus, Role};

/// Transfers that are under way at a time.
const TRANSFERS_MAX: usize = 256;

impl Host {
    /// Hands over every group that is led here to the best of its other voters, for `limit` at most.
    pub(crate) async fn hand_over_all(&self, limit: Duration) {
        if limit.is_zero() {
            return;
        }
        let env = self.env().clone();
        let begun = env.now();
        let handed_over = timeout(env.as_ref(), limit, async {
            let statuses = self.statuses().await;
            for some in statuses.chunks(TRANSFERS_MAX) {
                join_all(some.iter().map(|status| self.hand_over(status))).await;
            }
        });
        if handed_over.await.is_none() {
            tracing::warn!(node = %self.node(), ?limit, "stops with groups that nobody has taken over");
        }
        let seconds = env.now().since(begun).as_secs_f64();
        metrics::histogram!("rafted_value_handover_seconds").record(seconds);
    }

    async fn hand_over(&self, status: &GroupStatus) {
        for successor in successors(status) {
            match self.replace_leader(status.group, Some(successor)).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::info!(group = %status.group, %successor, %error, "does not take the leadership over");
                }
            }
        }
    }
}

/// Who could lead next, the best first: voters that are heard of, those that hold most before the others. Where many
/// hold the same, the group's id decides, so that the groups of a node do not all go to one other.
fn successors(status: &GroupStatus) -> Vec<MemberId> {
    if status.role != Role::Leader {
        return Vec::new();
    }
    let voters = status.members.iter().filter(|member| member.voter && member.responsive == Some(true));
    let mut others: Vec<_> = voters.filter(|member| member.member != status.member).collect();
    let turns = status.group.0 % (others.len() as u64).max(1);
    others.rotate_left(turns as usize);
    others.sort_by_key(|member| std::cmp::Reverse(member.matched));
    others.into_iter().map(|member| member.member).collect()
}
