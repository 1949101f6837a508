//! Finds members that their nodes have lost: a disk that lost its power ends members that it did not keep in full, under
//! ids that never come back, while their nodes keep theirs. To a leader such a member is only silent; its node knows.

use std::time::Duration;

use bytes::Bytes;
use rafted_value::env::sleep;
use rafted_value::{Freshness, GroupStatus, MemberStatus, NodeId, QueryError};

use super::plan::{Step, serves};
use crate::core::Core;

/// The members that are silent although they are where they should be.
pub(crate) fn silent<'a>(
    status: &'a GroupStatus,
    desired: &'a [NodeId],
) -> impl Iterator<Item = &'a MemberStatus> {
    let leads = serves(status);
    let silent = |member: &&MemberStatus| {
        member.member != status.member && member.responsive == Some(false) && desired.contains(&member.node)
    };
    status.members.iter().filter(move |_| leads).filter(silent)
}

/// The removal of a member that its node says it does not have; the node is then given a new one.
pub(crate) async fn find_lost(core: &Core, status: &GroupStatus, desired: &[NodeId]) -> Option<Step> {
    // A node without a disk has a new id after each restart.
    core.env.disk()?;
    for member in silent(status, desired) {
        if !is_missing(core, status, member.node).await {
            continue;
        }
        // It may just be about to be made: an election timeout later it would have been.
        sleep(core.env.as_ref(), Duration::from_millis(status.config.election_timeout_max_ms.into())).await;
        if is_missing(core, status, member.node).await {
            tracing::warn!(group = %status.group, member = %member.member, node = %member.node, "a node has lost its member");
            return Some(Step::Remove { member: member.member, node: member.node });
        }
    }
    None
}

/// Whether the node itself says that it has no member; whatever else it says, or silence, proves nothing.
async fn is_missing(core: &Core, status: &GroupStatus, node: NodeId) -> bool {
    let limit = core.config.call.attempt_timeout;
    let answer = core.caller.query_at(node, status.group, Freshness::Stale, Bytes::new(), limit).await;
    matches!(answer, Err(QueryError::NoSuchGroup(group)) if group == status.group)
}
