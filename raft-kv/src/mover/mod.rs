//! Splits and merges: who performs them, and when they are due.

mod performer;
mod plan;
pub(crate) mod planner;
pub(crate) mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use raft_fleet::rafted_value::env::sleep;

use self::performer::Performer;
use crate::keyspace_list::{KeyspaceList, Task};
use crate::keyspaces::{KeyspacesCommand, KeyspacesReply, Move};

/// Looks for moves that nobody performs, and performs them, as long as the node runs.
pub(crate) async fn run(list: Arc<KeyspaceList>) {
    let places = list.config().moves_performed_max;
    let taken: Vec<Arc<AtomicBool>> = std::iter::repeat_with(Arc::default).take(places).collect();
    loop {
        sleep(list.fleet().env().as_ref(), list.config().moves_poll).await;
        for (place, taken) in taken.iter().enumerate() {
            if taken.load(Ordering::Acquire) {
                continue;
            }
            let Some(claimed) = claim(&list).await else { break };
            taken.store(true, Ordering::Release);
            let (performer, taken) = (Performer::new(Arc::clone(&list), claimed), Arc::clone(taken));
            let task = async move {
                performer.run().await;
                taken.store(false, Ordering::Release);
            };
            list.run(Task::Move(place), Box::pin(task));
        }
    }
}

/// A move that waits for a performer, and is this node's now.
async fn claim(list: &KeyspaceList) -> Option<Move> {
    let listed = list.read_all().await.ok()?;
    let now_ms = list.fleet().env().wall_ms();
    // The list has the last word; this is only to leave it alone when there is nothing to do.
    if !listed.moves.iter().any(|present| present.until_ms < now_ms) {
        return None;
    }
    let command = KeyspacesCommand::Claim { lease_ms: list.config().move_lease_ms() };
    let deadline = list.fleet().env().now() + list.config().call.timeout;
    match list.command("claiming a move", &command, deadline).await {
        Ok(KeyspacesReply::Moving(claimed)) => Some(claimed),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "a move could not be claimed");
            None
        }
    }
}
