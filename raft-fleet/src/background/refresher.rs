//! Keeps the view fresh.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rafted_value::env::{MonoTime, timeout};
use rafted_value::transport::{CallError, PeerInfo};

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

/// Of `hello_timeout`, this part is left to the other seeds once one has answered: one that is dead does not answer at all,
/// and nobody should wait for it.
const GRACE_DIVISOR: u32 = 5;

/// Dials the seeds of a node or client that reaches none of the nodes it knows; what was seen there.
pub(crate) async fn find_contacts(core: &Core) -> Sightings {
    let (env, me) = (core.env.as_ref(), core.node);
    let seeds = core.config.seeds.iter().enumerate();
    let mut looks: FuturesUnordered<_> = seeds.map(|(place, seed)| look_at(core, place, seed)).collect();
    let grace = core.config.hello_timeout / GRACE_DIVISOR;
    let (mut sightings, mut found) = (Sightings::default(), BTreeMap::new());
    for seed in &core.config.seeds {
        let reason = format!("no answer in the {} ms after another's", grace.as_millis());
        sightings.note(seed, Sight::nobody(CallError::NoPeer { address: seed.clone(), reason }));
    }
    let mut until: Option<MonoTime> = None;
    loop {
        let next = match until {
            Some(until) => timeout(env, until.since(env.now()), looks.next()).await.flatten(),
            None => looks.next().await,
        };
        let Some((place, peer)) = next else { break };
        let sight = match peer {
            Ok(peer) if peer.node == me => Sight::Myself,
            Ok(peer) => {
                until = Some(env.now() + grace);
                found.insert(place, peer.node);
                Sight::dialled(peer)
            }
            Err(error) => Sight::nobody(error),
        };
        sightings.note(&core.config.seeds[place], sight);
    }
    // In the order of the seeds, whoever was the first to answer.
    if !found.is_empty() {
        core.views.set_contacts(found.into_values().collect());
    }
    sightings
}

async fn look_at(core: &Core, place: usize, seed: &str) -> (usize, Result<PeerInfo, CallError>) {
    let transport = core.env.transport();
    let peer = transport.discover(seed, core.config.hello_timeout).await;
    if let Ok(peer) = &peer {
        transport.set_address(peer.node, seed);
    }
    (place, peer)
}
