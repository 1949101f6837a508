//! Keeps this node listed, with the weight that it is to have, and speaks up when others believe that it is gone.

use std::sync::Arc;

use rafted_value::env::timeout;

use crate::cluster_state::{ClusterCommand, ClusterReply};
use crate::core::{Core, Member};
use crate::view::View;

pub(crate) async fn run(core: Arc<Core>) {
    let Some(member) = &core.member else { return };
    let mut weighed = false;
    loop {
        let view = core.views.current();
        weighed = attend(&core, member, &view, weighed).await;
        let wait = core.jittered(core.config.balancing_interval).since(core.env.now());
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
        tracing::info!(node = %core.node, "others do not hear of this node; it speaks up");
        let hear = ClusterCommand::Hear { node: core.node, by: core.node };
        tell(core, &hear, "others still believe that this node is gone").await;
    }
    match core.config.weight.filter(|_| !weighed) {
        None => weighed,
        Some(weight) => {
            let weigh = ClusterCommand::Weigh { node: core.node, weight };
            tell(core, &weigh, "this node does not have its weight yet").await
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
