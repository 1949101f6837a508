//! Asks every node whether it lives, and has the cluster purge one that has been silent for too long.
//!
//! Only the leader of the cluster group does so: two observers that cannot see each other must not purge each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use rafted_value::env::MonoTime;
use rafted_value::{NodeId, Role};

use crate::cluster_state::{CLUSTER_GROUP, ClusterCommand, ClusterReply};
use crate::core::Core;
use crate::wire::FleetRequest;

pub(crate) async fn run(core: Arc<Core>) {
    // When each node was last heard of. It starts anew with each leadership: what a former leader heard is not known.
    let mut heard = BTreeMap::<NodeId, MonoTime>::new();
    loop {
        core.env.sleep_until(core.jittered(core.config.ping_interval)).await;
        if leads(&core).await {
            ping_all(&core, &mut heard).await;
            purge_silent(&core, &mut heard).await;
        } else {
            heard.clear();
        }
    }
}

async fn leads(core: &Core) -> bool {
    let Some(host) = &core.host else { return false };
    host.status(CLUSTER_GROUP).await.is_some_and(|status| status.role == Role::Leader && status.ready)
}

async fn ping_all(core: &Core, heard: &mut BTreeMap<NodeId, MonoTime>) {
    let view = core.views.current();
    let nodes: Vec<NodeId> = view.state.nodes().keys().copied().filter(|node| *node != core.node).collect();
    let limit = core.config.ping_interval;
    let ping = |node: NodeId| async move { core.ask(node, &FleetRequest::Ping, limit).await.is_ok() };
    let answered = join_all(nodes.iter().map(|node| ping(*node))).await;
    let now = core.env.now();
    heard.retain(|node, _| view.state.nodes().contains_key(node));
    for (node, answered) in nodes.into_iter().zip(answered) {
        if answered {
            heard.insert(node, now);
        } else {
            let since = *heard.entry(node).or_insert(now);
            tracing::info!(%node, silent = ?now.since(since), "a node does not answer");
        }
    }
}

async fn purge_silent(core: &Core, heard: &mut BTreeMap<NodeId, MonoTime>) {
    let now = core.env.now();
    let window = core.config.failure_window;
    let silent = heard.iter().filter(|(_, at)| now.since(**at) > window);
    let silent: Vec<NodeId> = silent.map(|(node, _)| *node).collect();
    for node in silent {
        tracing::warn!(%node, ?window, "a node was silent for too long and is purged");
        let purge = ClusterCommand::Purge { node, by: core.node };
        match core.change_cluster(&purge, &core.config.call).await {
            Ok(ClusterReply::Refused(refusal)) => tracing::info!(%node, %refusal, "the node is not purged"),
            Ok(_) => {
                metrics::counter!("raft_fleet_nodes_purged_total").increment(1);
                heard.remove(&node);
            }
            Err(error) => tracing::warn!(%node, %error, "the node is not purged yet"),
        }
    }
}
