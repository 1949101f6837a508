//! Keeps the view fresh.

use std::sync::Arc;

use futures_util::future::join_all;
use rafted_value::env::timeout;

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
        if !core.refresh(turn).await {
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
                Sight::dialled(peer)
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
