//! Splits and merges: who performs them, and when they are due.

mod performer;
mod plan;
pub(crate) mod planner;
pub(crate) mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use raft_fleet::rafted_value::NodeId;
use raft_fleet::rafted_value::env::sleep;
use raft_fleet::rafted_value::transport::{PeerChange, PeerWatch};

use self::performer::Performer;
use crate::config::as_ms;
use crate::keyspace_list::{KeyspaceList, Task};
use crate::keyspaces::{KeyspacesCommand, KeyspacesReply, Move};

/// The shortest time between two looks at the moves.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// Looks for moves that nobody performs, and performs them, as long as the node runs.
pub(crate) async fn run(list: Arc<KeyspaceList>) {
    let env = Arc::clone(list.fleet().env());
    let mut peers = env.transport().watch_peers();
    let places = list.config().moves_performed_max;
    let taken: Vec<Arc<AtomicBool>> = std::iter::repeat_with(Arc::default).take(places).collect();
    // What this node performed in an earlier life, it performs no more.
    let mut gone = Some(list.fleet().node());
    loop {
        let mut next = list.config().moves_poll;
        for (place, taken) in taken.iter().enumerate() {
            if taken.load(Ordering::Acquire) {
                continue;
            }
            let claimed = match claim(&list, gone).await {
                Ok(claimed) => claimed,
                Err(look_again) => {
                    next = next.min(look_again).max(LOOK_MIN);
                    break;
                }
            };
            taken.store(true, Ordering::Release);
            let (performer, taken) = (Performer::new(Arc::clone(&list), claimed), Arc::clone(taken));
            let task = async move {
                performer.run().await;
                taken.store(false, Ordering::Release);
            };
            list.run(Task::Move(place), Box::pin(task));
        }
        gone = match select(sleep(env.as_ref(), next), Box::pin(next_gone(&mut peers))).await {
            Either::Left(_) => None,
            Either::Right((node, _)) => Some(node),
        };
    }
}

/// The next node of which the transport tells that its process has ended.
async fn next_gone(peers: &mut PeerWatch) -> NodeId {
    loop {
        match peers.next().await {
            Some(Ok(event)) => match event.change {
                PeerChange::Down(reason) if reason.is_final() => return event.node,
                _ => {}
            },
            // Whoever is missed here is silent, and its time runs out.
            Some(Err(missed)) => tracing::debug!(%missed, "some ends of nodes may have been missed"),
            None => *peers = PeerWatch::never(),
        }
    }
}

/// A move that waits for a performer, or whose performer is `gone`, and is this node's now; else when to look again.
async fn claim(list: &KeyspaceList, gone: Option<NodeId>) -> Result<Move, Duration> {
    let poll = list.config().moves_poll;
    let now_ms = list.fleet().env().wall_ms();
    // The list has the last word; this is only to leave it alone when there is nothing to do.
    let moves = list.read_moves().await.unwrap_or_default();
    let waits = |present: &Move| present.until_ms < now_ms || (gone.is_some() && present.performer == gone);
    if !moves.iter().any(waits) {
        let ends = moves.iter().map(|present| present.until_ms).min();
        return Err(ends.map_or(poll, |until_ms| Duration::from_millis(until_ms.saturating_sub(now_ms) + 1)));
    }
    let (node, lease_ms) = (list.fleet().node(), as_ms(list.config().move_lease));
    let command = KeyspacesCommand::Claim { node, gone, lease_ms };
    let deadline = list.fleet().env().now() + list.config().call.timeout;
    match list.command("claiming a move", &command, deadline).await {
        Ok(KeyspacesReply::Moving(claimed)) => Ok(claimed),
        Ok(_) => Err(poll),
        Err(error) => {
            tracing::debug!(%error, "a move could not be claimed");
            Err(poll)
        }
    }
}
