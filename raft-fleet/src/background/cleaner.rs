//! Ends local members of groups that were removed, or that removed them, and tells the cluster when none is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use rafted_value::env::timeout;
use rafted_value::{GroupId, Host};

use super::orphans::Orphans;
use crate::cluster_state::{ClusterAnswer, ClusterCommand, ClusterQuery, FIRST_GROUP};
use crate::core::Core;
use crate::keepsakes;

/// Groups that one command or query names at most.
const GROUPS_MAX: usize = 1024;

/// While the cluster state stays as it is, members are compared with it at every so many intervals only.
const QUIET_INTERVALS: u32 = 10;

pub(crate) async fn run(core: Arc<Core>) {
    let Some(host) = core.host.get() else { return };
    let (mut compared, mut quiet) = (0, 0);
    let mut orphans = Orphans::default();
    loop {
        let due = core.jittered(core.config.balancing_interval);
        let mut seen = BTreeSet::new();
        // Whoever is to use the name of a removed group again waits for this.
        while let Some(groups) =
            timeout(core.env.as_ref(), due.since(core.env.now()), newly_removed(&core, &seen)).await
        {
            seen.extend(&groups);
            clean_up(&core, host, groups).await;
        }
        let revision = core.views.current().state.revision();
        quiet += 1;
        if revision != compared || quiet >= QUIET_INTERVALS {
            if drop_strays(&core, host).await {
                (compared, quiet) = (revision, 0);
            }
            sweep(&core).await;
            if orphans.end(&core, host).await {
                quiet = QUIET_INTERVALS;
            }
        }
        clean_up(&core, host, removed(&core, &BTreeSet::new())).await;
    }
}

/// Groups that were removed, and of which this node has not said yet that it holds no member; without those that are seen to.
fn removed(core: &Core, seen: &BTreeSet<GroupId>) -> Vec<GroupId> {
    let view = core.views.current();
    let removed = view.state.removed().iter().filter(|(_, removed)| removed.pending.contains(&core.node));
    removed.map(|(group, _)| *group).filter(|group| !seen.contains(group)).take(GROUPS_MAX).collect()
}

/// Completes once there are any.
async fn newly_removed(core: &Core, seen: &BTreeSet<GroupId>) -> Vec<GroupId> {
    loop {
        let revision = core.views.current().state.revision();
        let groups = removed(core, seen);
        if !groups.is_empty() {
            return groups;
        }
        core.views.newer_than(revision).await;
    }
}

/// Ends members of groups that are not listed. The view may be old, or newer than a group that was just made, so the
/// cluster group has the last word. Says whether it was heard.
async fn drop_strays(core: &Core, host: &Host) -> bool {
    let view = core.views.current();
    let statuses = host.statuses().await;
    let strays = statuses.iter().map(|status| status.group);
    let strays: Vec<GroupId> =
        strays.filter(|group| *group >= FIRST_GROUP && !view.lists(*group)).take(GROUPS_MAX).collect();
    if strays.is_empty() {
        return true;
    }
    let query = ClusterQuery::Missing { groups: strays };
    match core.ask_cluster(&query, core.config.call.timeout).await {
        Ok(ClusterAnswer::Missing(groups)) => {
            let mut ended = true;
            for group in groups {
                if leave_behind(core, host, group).await {
                    tracing::info!(%group, node = %core.node, "the member of a removed group ends");
                    end(host, group).await;
                } else {
                    ended = false;
                }
            }
            return ended;
        }
        Ok(other) => tracing::warn!(?other, "a query for missing groups was answered strangely"),
        Err(error) => tracing::debug!(%error, "nobody knows whether groups were removed"),
    }
    false
}

/// Makes sure that no member of removed groups can come to be here, then says so; one that does not end holds up no other.
async fn clean_up(core: &Core, host: &Host, groups: Vec<GroupId>) {
    let mut ended = Vec::new();
    for group in groups {
        if leave_behind(core, host, group).await && end(host, group).await {
            ended.push(group);
        }
    }
    if ended.is_empty() {
        return;
    }
    let command = ClusterCommand::CleanedUp { node: core.node, groups: ended };
    if let Err(error) = core.change_cluster(&command, &core.config.call).await {
        tracing::debug!(%error, "the cluster does not know yet that members have ended");
    }
}

/// Takes the member of a removed group out of service, and writes down what it had come to, where the cluster wants that
/// kept, and says so. Only then may the member end: says whether it may.
async fn leave_behind(core: &Core, host: &Host, group: GroupId) -> bool {
    if core.env.disk().is_none() || core.views.current().state.kept_of(group).is_none() {
        return true;
    }
    let come_to = match host.retire(group).await {
        Ok(come_to) => come_to,
        Err(error) => {
            tracing::error!(%group, %error, "what a removed group had come to is not known yet; its member stays");
            return false;
        }
    };
    let rank = match come_to {
        Some(keepsake) => {
            let rank = keepsake.rank;
            if let Err(reason) = keepsakes::save(&core.env, group, keepsake).await {
                tracing::error!(%group, reason, "what a removed group had come to cannot be kept; its member stays");
                return false;
            }
            rank
        }
        // Perhaps it was written down before this node stopped, or before the cluster heard of it.
        None => match keepsakes::load(&core.env, group).await {
            Ok(Some(keepsake)) => keepsake.rank,
            Ok(None) => return true,
            Err(reason) => {
                tracing::error!(%group, reason, "what a removed group had come to cannot be read");
                return false;
            }
        },
    };
    let keep = ClusterCommand::Keep { node: core.node, group, rank };
    match core.change_cluster(&keep, &core.config.call).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%group, %error, "the cluster does not know yet what was kept");
            false
        }
    }
}

/// Removes what was kept of groups that were added again or deleted; the cluster group has the last word.
async fn sweep(core: &Core) {
    if !keepsakes::any(&core.env).await || core.refresh_latest(core.config.call.timeout).await.is_err() {
        return;
    }
    let kept = core.views.current().state.kept().values().map(|kept| kept.group).collect();
    keepsakes::sweep(&core.env, kept).await;
}

async fn end(host: &Host, group: GroupId) -> bool {
    match host.drop_member(group).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%group, %error, "a member does not end yet");
            false
        }
    }
}
