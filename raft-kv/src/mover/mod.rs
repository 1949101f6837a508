//! Splits and merges: who performs them, and when they are due.

mod catch_up;
mod performer;
mod plan;
pub(crate) mod planner;
pub(crate) mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use raft_fleet::rafted_value::NodeId;
use raft_fleet::rafted_value::env::{MonoTime, sleep};
use raft_fleet::rafted_value::transport::{PeerChange, PeerWatch};

use self::performer::Performer;
use crate::config::as_ms;
use crate::keyspace_list::{KeyspaceList, Task};
use crate::keyspaces::{KeyspacesCommand, KeyspacesReply, Move};

/// The shortest time between two looks at the moves.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// Moves of its present life that a node remembers, at most: many times what it performs at a time.
const OWN_MAX: usize = 1024;
/// How often a node looks again for moves of a node that is gone, or of its own earlier life: its member of the list may
/// hear of the last claims of the dead a heartbeat later.
const LOOK_GONE: Duration = Duration::from_millis(50);

/// Looks for moves that nobody performs, and performs them, as long as the node runs.
pub(crate) async fn run(list: Arc<KeyspaceList>) {
    let env = Arc::clone(list.fleet().env());
    let mut peers = env.transport().watch_peers();
    let places = list.config().moves_performed_max;
    let taken: Vec<Arc<AtomicBool>> = std::iter::repeat_with(Arc::default).take(places).collect();
    let mut gone = Gone::new(list.config().move_lease);
    let mut own = Own::default();
    // The last claims of an earlier life of this node may be heard of late as well.
    let young_until = env.now() + list.config().move_lease;
    loop {
        gone.expire(env.now());
        let mut next = list.config().moves_poll;
        for (place, taken) in taken.iter().enumerate() {
            if taken.load(Ordering::Acquire) {
                continue;
            }
            let claimed = match claim(&list, &gone, &own).await {
                Ok(claimed) => claimed,
                Err(look_again) => {
                    next = next.min(look_again).max(LOOK_MIN);
                    break;
                }
            };
            own.add(&claimed);
            taken.store(true, Ordering::Release);
            let (performer, taken) = (Performer::new(Arc::clone(&list), claimed), Arc::clone(taken));
            let task = async move {
                performer.run().await;
                taken.store(false, Ordering::Release);
            };
            list.run(Task::Move(place), Box::pin(task));
        }
        if !gone.nodes.is_empty() || env.now() < young_until {
            next = next.min(LOOK_GONE);
        }
        if let Either::Right((change, _)) =
            select(sleep(env.as_ref(), next), Box::pin(next_change(&mut peers))).await
        {
            match change {
                Change::Gone(node) => gone.add(node, env.now()),
                Change::Back(node) => gone.remove(node),
            }
        }
    }
}

/// Nodes of which the transport has told that their processes have ended, for as long as their leases may last.
struct Gone {
    nodes: BTreeMap<NodeId, MonoTime>,
    kept: Duration,
}

impl Gone {
    fn new(kept: Duration) -> Self {
        Self { nodes: BTreeMap::new(), kept }
    }

    fn add(&mut self, node: NodeId, now: MonoTime) {
        self.nodes.insert(node, now + self.kept);
    }

    /// It is there again, under the same id.
    fn remove(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    fn expire(&mut self, now: MonoTime) {
        self.nodes.retain(|_, until| now < *until);
    }

    fn contains(&self, node: Option<NodeId>) -> bool {
        node.is_some_and(|node| self.nodes.contains_key(&node))
    }
}

/// The moves that this node has claimed in its present life, the newest of them, each with the last epoch that was its own.
/// Whatever else the list has in this node's name was performed by an earlier life of it, or was claimed without an answer:
/// nobody performs it.
#[derive(Default)]
struct Own(BTreeMap<u64, u64>);

impl Own {
    fn add(&mut self, claimed: &Move) {
        self.0.insert(claimed.id, claimed.epoch);
        if self.0.len() > OWN_MAX {
            self.0.pop_first();
        }
    }

    /// Whether this life has had the move, in the epoch that the list says or a later one.
    fn knows(&self, present: &Move) -> bool {
        self.0.get(&present.id).is_some_and(|epoch| *epoch >= present.epoch)
    }
}

/// What the transport tells of a node's process.
enum Change {
    Gone(NodeId),
    Back(NodeId),
}

/// The next node that has come or whose process has ended.
async fn next_change(peers: &mut PeerWatch) -> Change {
    loop {
        match peers.next().await {
            Some(Ok(event)) => match event.change {
                PeerChange::Up => return Change::Back(event.node),
                PeerChange::Down(reason) if reason.is_final() => return Change::Gone(event.node),
                _ => {}
            },
            // Whoever is missed here is silent, and its time runs out.
            Some(Err(missed)) => tracing::debug!(%missed, "some ends of nodes may have been missed"),
            None => *peers = PeerWatch::never(),
        }
    }
}

/// A move that waits for a performer, or whose performer is `gone`, or that an earlier life of this node performed, and is
/// this node's now; else when to look again.
async fn claim(list: &KeyspaceList, gone: &Gone, own: &Own) -> Result<Move, Duration> {
    let poll = list.config().moves_poll;
    let now_ms = list.fleet().env().wall_ms();
    // The list has the last word; this is only to leave it alone when there is nothing to do.
    let moves = list.read_moves().await.unwrap_or_default();
    let node = list.fleet().node();
    let forgotten = moves.iter().find(|present| present.performer == Some(node) && !own.knows(present));
    let orphan = moves.iter().find(|present| gone.contains(present.performer));
    if forgotten.is_none() && orphan.is_none() && !moves.iter().any(|present| present.until_ms < now_ms) {
        let ends = moves.iter().map(|present| present.until_ms).min();
        // A performer may shorten its lease at any time, when it gives the range up.
        let soon = poll.min(list.config().move_pause_lease);
        return Err(
            ends.map_or(poll, |ends| soon.min(Duration::from_millis(ends.saturating_sub(now_ms) + 1)))
        );
    }
    let gone = orphan.and_then(|orphan| orphan.performer);
    let lease_ms = as_ms(list.config().move_lease);
    let command = match forgotten {
        Some(&Move { id, epoch, .. }) => KeyspacesCommand::Resume { id, epoch, node, lease_ms },
        None => KeyspacesCommand::Claim { node, gone, lease_ms },
    };
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
