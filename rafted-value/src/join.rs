//! A node that joins a group which others lead: through any member it knows, all the way to a vote, or not at all.

use std::time::Duration;

use crate::caller::GroupCaller;
use crate::env::{MonoTime, sleep};
use crate::error::GroupError;
use crate::host::Host;
use crate::id::{GroupId, MemberId, NodeId};
use crate::service::GroupRequest;

/// How long one question to one member may take.
const CALL_MAX: Duration = Duration::from_secs(1);
/// The wait before a question is asked again.
const RETRY_WAIT: Duration = Duration::from_millis(20);
/// How long a learner that will not become a voter is asked to be removed.
const CLEAN_UP_MAX: Duration = Duration::from_secs(3);

/// Asks the leader of a group, wherever it is.
struct Line {
    host: Host,
    caller: GroupCaller,
    group: GroupId,
    /// The member that is known from the start.
    via: NodeId,
    at: NodeId,
    /// Whether a question may have been heard although its answer was not.
    perhaps: bool,
}

impl Host {
    /// Makes this node's member of a group that has members elsewhere, waits until it has caught up, and gives it a vote;
    /// its id. `via` is the node of any member: it says who leads. Whoever leads must be known to the transport.
    ///
    /// # Errors
    ///
    /// [`GroupError::NoLeader`] when no leader was found in time: nothing was changed, as far as is known.
    /// [`GroupError::JoinTimedOut`] when the member did not become a voter in time; it is removed again, which takes up
    /// to three seconds more, and the error says whether that is certain.
    pub async fn join(&self, group: GroupId, via: NodeId, limit: Duration) -> Result<MemberId, GroupError> {
        let deadline = self.env().now() + limit;
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let caller = GroupCaller::new(self.env().clone());
        let mut line = Line { host: self.clone(), caller, group, via, at: via, perhaps: false };
        let member = match line.ask(&GroupRequest::Join { group }, deadline).await {
            Ok(member) => member,
            Err(error) if !line.perhaps => return Err(without_leader(error, group, limit_ms)),
            Err(error) => return line.give_up(None, &error, limit_ms).await,
        };
        match line.ask(&GroupRequest::Promote { group, member }, deadline).await {
            Ok(_) => Ok(member),
            Err(error) => line.give_up(Some(member), &error, limit_ms).await,
        }
    }
}

impl Line {
    /// Asks until there is an answer that another try would not change.
    async fn ask(&mut self, request: &GroupRequest, deadline: MonoTime) -> Result<MemberId, GroupError> {
        loop {
            let left = deadline.since(self.host.env().now());
            let error = match self.caller.change_at(self.at, request, left.min(CALL_MAX)).await {
                Ok(member) => return Ok(member),
                Err(error) => error,
            };
            match &error {
                GroupError::NotLeader { leader: Some(leader), .. } if *leader != self.at => self.at = *leader,
                GroupError::NotLeader { .. } | GroupError::Unreachable(_) => self.at = self.via,
                GroupError::Unknown(_) => {
                    self.perhaps = true;
                    self.at = self.via;
                }
                GroupError::NotCaughtUp { .. }
                | GroupError::ChangeInProgress(_)
                | GroupError::TransferInProgress { .. }
                | GroupError::Unavailable => {}
                _ => return Err(error),
            }
            if self.host.env().now() + RETRY_WAIT >= deadline {
                return Err(error);
            }
            sleep(self.host.env().as_ref(), RETRY_WAIT).await;
        }
    }

    /// Takes back what was begun; the error that tells of it. Where the member votes, it has joined after all.
    async fn give_up(
        &mut self,
        member: Option<MemberId>,
        error: &GroupError,
        limit_ms: u64,
    ) -> Result<MemberId, GroupError> {
        let (group, reason) = (self.group, error.to_string());
        let deadline = self.host.env().now() + CLEAN_UP_MAX;
        let removed = self.ask(&GroupRequest::Leave { group }, deadline).await;
        let leftover = match removed {
            Ok(gone) => {
                // What a leader has sent here in between is the last of it.
                let newest = member.map_or(gone, |member| member.max(gone));
                drop(self.host.bury(group, newest).await);
                false
            }
            Err(GroupError::Votes { member, .. }) => return Ok(member),
            Err(error) => {
                tracing::warn!(%group, %error, "a learner that will not become a voter may be left over");
                true
            }
        };
        Err(GroupError::JoinTimedOut { group, limit_ms, reason, leftover })
    }
}

/// Nothing but the lack of a leader is told as that.
fn without_leader(error: GroupError, group: GroupId, limit_ms: u64) -> GroupError {
    match error {
        GroupError::NotLeader { .. } => GroupError::NoLeader { group, limit_ms },
        error => error,
    }
}
