//! Keeps the view fresh, and this node listed.

use std::sync::Arc;

use futures_util::future::join_all;
use rafted_value::env::timeout;

use crate::cluster_state::{ClusterCommand, ClusterReply};
use crate::core::Core;
use crate::formation::{Sight, Sightings};

/// Refreshes the view now and then, more often while somebody waits for a change, and at once after an error.
pub(crate) async fn run(core: Arc<Core>) {
    let mut turn = 1_usize;
    loop {
        let interval =
            if core.views.is_urgent() { core.config.view_refresh_urgent } else { core.config.view_refresh };
        let wait = core.jittered(interval).since(core.env.now());
        let _ = timeout(core.env.as_ref(), wait, core.views.wanted()).await;
        if core.refresh(turn).await {
            stay_listed(&core).await;
        } else {
            find_contacts(&core).await;
        }
        turn = turn.wrapping_add(1);
        // Many errors at once want one refresh, not one each.
        core.env.sleep_until(core.jittered(core.config.view_refresh_urgent / 4)).await;
    }
}

/// Dials the seeds of a node or client that reaches none of the nodes it knows; what was seen there.
pub(crate) async fn find_contacts(core: &Core) -> Sightings {
    let limit = core.config.hello_timeout;
    let me = core.node;
    let looks = join_all(core.config.seeds.iter().map(|seed| async move {
        let peer = core.env.transport().discover(seed, limit).await;
        if let Ok(peer) = &peer {
            core.env.transport().set_address(peer.node, seed);
        }
        (seed, peer)
    }));
    let (mut sightings, mut found) = (Sightings::default(), Vec::new());
    for (seed, peer) in looks.await {
        let sight = match peer {
            Ok(peer) if peer.node == me => Sight::Myself,
            Ok(peer) => {
                found.push(peer.node);
                let reason = "it did not tell of a cluster".to_owned();
                Sight::Strange { name: peer.name, reason }
            }
            Err(error) => Sight::nobody(error),
        };
        sightings.note(seed, sight);
    }
    if !found.is_empty() {
        core.views.set_contacts(found);
    }
    sightings
}

/// A node that was purged while it was away is not listed any more: it says so and joins again.
async fn stay_listed(core: &Core) {
    let Some(member) = &core.member else { return };
    let view = core.views.current();
    let Some(cluster) = view.state.cluster() else { return };
    if view.state.nodes().contains_key(&core.node) {
        return;
    }
    let successor = view
        .state
        .nodes()
        .iter()
        .find(|(_, entry)| entry.name == member.info.name && entry.address == member.info.address);
    if let Some((successor, _)) = successor {
        tracing::error!(node = %core.node, %successor, "another process has the name and address of this node");
        return;
    }
    tracing::warn!(node = %core.node, "this node was purged from the cluster; it joins again");
    let join = ClusterCommand::Join { node: member.info.clone(), cluster };
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
