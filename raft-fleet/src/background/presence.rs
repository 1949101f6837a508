//! Keeps this node listed, with the weight that it is to have, and speaks up when others believe that it is gone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rafted_value::env::timeout;

use crate::cluster_state::{ClusterCommand, ClusterReply};
use crate::core::{Core, Member};
use crate::view::View;
use crate::wire::FleetRequest;

/// A request that is no older than so many pings shows that a node lives.
const HEARD_PINGS: u32 = 3;

pub(crate) async fn run(core: Arc<Core>) {
    let Some(member) = &core.member else { return };
    let mut weighed = false;
    loop {
        let view = core.views.current();
        if let Some(Err(error)) = member.lives().map(|lives| lives.present_in(&view.state, &core.env)) {
            tracing::error!(node = %core.node, %error, "this node ends: another process has become its next life");
            let overtaken = Arc::clone(&core);
            // It ends this task too.
            drop(core.env.spawn("fleet end", Box::pin(async move { overtaken.shutdown().await })));
            return;
        }
        weighed = attend(&core, member, &view, weighed).await;
        let wait = core.jittered(core.config.balancing_interval).since(core.env.now());
        vouch(&core, &view).await;
        let newer = core.views.newer_than(view.state.revision());
        let _ = timeout(core.env.as_ref(), wait, newer).await;
    }
}

/// Does what the view asks of this node; says whether the node has its weight.
async fn attend(core: &Core, member: &Member, view: &View, weighed: bool) -> bool {
    if !view.state.nodes().contains_key(&core.node) {
        stay_listed(core, member, view).await;
        return false;
    }
    if view.state.suspects().contains_key(&core.node) {
        speak_up(core, view).await;
    }
    match core.config.weight.filter(|_| !weighed) {
        None => weighed,
        Some(weight) => {
            let weigh = ClusterCommand::Weigh { node: core.node, weight };
            tell(core, &weigh, "this node does not have its weight yet").await
        }
    }
}

/// Says that this node lives; to the cluster group, or where its leader cannot be reached, to the other nodes.
async fn speak_up(core: &Core, view: &View) {
    tracing::info!(node = %core.node, "others do not hear of this node; it speaks up");
    let hear = ClusterCommand::Hear { node: core.node, by: core.node };
    let options = core.config.call.with_timeout(core.config.ping_interval);
    if let Err(error) = core.change_cluster(&hear, &options).await {
        tracing::debug!(node = %core.node, %error, "the cluster group is not within reach");
        let others = view.state.nodes().keys().filter(|node| **node != core.node);
        join_all(others.map(|node| core.ask(*node, &FleetRequest::Ping, core.config.ping_interval))).await;
    }
}

/// Speaks for nodes that this one hears of, and that others believe to be gone: half of the window is for them to do so
/// themselves.
async fn vouch(core: &Core, view: &View) {
    for (node, suspicion) in view.state.suspects().iter().filter(|(node, _)| **node != core.node) {
        let suspected = Duration::from_millis(core.env.wall_ms().saturating_sub(suspicion.since_ms));
        let recently = core.config.ping_interval.saturating_mul(HEARD_PINGS);
        if suspected < core.config.failure_window / 2 || !core.has_heard(*node, recently) {
            continue;
        }
        tracing::info!(%node, "this node hears of one that others do not hear of");
        let hear = ClusterCommand::Hear { node: *node, by: core.node };
        let options = core.config.call.with_timeout(core.config.ping_interval);
        if let Err(error) = core.change_cluster(&hear, &options).await {
            tracing::debug!(%node, %error, "the cluster does not know yet that a node lives");
        }
    }
}

async fn tell(core: &Core, command: &ClusterCommand, failed: &'static str) -> bool {
    match core.change_cluster(command, &core.config.call).await {
        Ok(ClusterReply::Refused(refusal)) => tracing::info!(node = %core.node, %refusal, "{failed}"),
        Ok(_) => return true,
        Err(error) => tracing::debug!(node = %core.node, %error, "{failed}"),
    }
    false
}

/// A node that was purged while it was away is not listed any more: it says so, and joins again if it may.
async fn stay_listed(core: &Core, member: &Member, view: &View) {
    let Some(cluster) = view.state.cluster() else { return };
    let info = member.info();
    let successor =
        view.state.nodes().iter().find(|(_, entry)| entry.name == info.name && entry.address == info.address);
    if let Some((successor, _)) = successor {
        tracing::error!(node = %core.node, %successor, "another process has the name and address of this node");
        return;
    }
    if !core.config.rejoin || !member.wants_members() {
        tracing::warn!(node = %core.node, "this node was purged from the cluster; it waits to be activated");
        return;
    }
    tracing::warn!(node = %core.node, "this node was purged from the cluster; it joins again");
    let join = ClusterCommand::Join { node: info, cluster };
    match core.change_cluster(&join, &core.config.call).await {
        Ok(ClusterReply::Refused(refusal)) => {
            tracing::error!(node = %core.node, %refusal, "the cluster does not take this node back");
        }
        Ok(_) => (),
        Err(error) => {
            tracing::info!(node = %core.node, %error, "the cluster has not taken this node back yet");
        }
    }
}
