//! The loops of other nodes that this one leans on, and that lean on it: quiet groups have no beats of their own.
//!
//! A loop says for all quiet groups that it shares with a loop of another node, in one small message, that it still
//! turns. It is the loop that speaks and not its node, so that a loop that stands still counts as dead; and a loop is
//! drawn anew with every start, so that a node which was down for less than the silence that counts is noticed too.
//! Nothing here is a matter of safety: a group that leans on somebody who is gone is late, never wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::env::MonoTime;
use crate::id::NodeId;

/// One life of one loop, drawn at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct LoopId(pub(crate) u64);

/// What one loop says to another; append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LoopMessage {
    /// The loop `from` turns, and groups on the loop `to` may go on leaning on it.
    Beat { from: LoopId, to: LoopId },
}

/// A loop of another node.
#[derive(Clone, Copy, Debug)]
struct Neighbour {
    node: NodeId,
    heard: MonoTime,
    /// How many quiet groups are shared with it.
    groups: u32,
}

/// All loops with which quiet groups are shared.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    known: BTreeMap<LoopId, Neighbour>,
    /// When silence was looked for last.
    watched: MonoTime,
}

impl Neighbours {
    /// A group that fell quiet at `now` is shared with a loop, which spoke just now.
    pub(crate) fn lean(&mut self, node: NodeId, id: LoopId, now: MonoTime) {
        if self.known.is_empty() {
            self.watched = now;
        }
        let neighbour = self.known.entry(id).or_insert(Neighbour { node, heard: now, groups: 0 });
        neighbour.heard = neighbour.heard.max(now);
        neighbour.groups += 1;
    }

    /// A group that was shared is awake.
    pub(crate) fn release(&mut self, id: LoopId) {
        let Some(neighbour) = self.known.get_mut(&id) else { return };
        neighbour.groups -= 1;
        if neighbour.groups == 0 {
            self.known.remove(&id);
        }
    }

    /// A loop turns. One with which nothing is shared is not remembered.
    pub(crate) fn hear(&mut self, id: LoopId, now: MonoTime) {
        if let Some(neighbour) = self.known.get_mut(&id) {
            neighbour.heard = neighbour.heard.max(now);
        }
    }

    /// When a loop was heard last.
    pub(crate) fn heard(&self, id: LoopId) -> Option<MonoTime> {
        self.known.get(&id).map(|neighbour| neighbour.heard)
    }

    /// Those that were not heard for longer than `limit`. Asked for less often than every half of that, it was we who
    /// did not listen, and all are given time again.
    pub(crate) fn silent(&mut self, now: MonoTime, limit: Duration) -> Vec<LoopId> {
        let listened = now.since(self.watched) <= limit / 2;
        self.watched = now;
        if !listened {
            for neighbour in self.known.values_mut() {
                neighbour.heard = now;
            }
        }
        let silent = self.known.iter().filter(|(_, neighbour)| now.since(neighbour.heard) > limit);
        silent.map(|(id, _)| *id).collect()
    }

    /// Those on a node.
    pub(crate) fn on(&self, node: NodeId) -> Vec<LoopId> {
        self.known.iter().filter(|(_, neighbour)| neighbour.node == node).map(|(id, _)| *id).collect()
    }

    /// All of them, with their nodes.
    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, LoopId)> {
        self.known.iter().map(|(id, neighbour)| (neighbour.node, *id))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_beat_has_these_golden_bytes() {
        let beat = LoopMessage::Beat { from: LoopId(300), to: LoopId(5) };
        assert_eq!(crate::data::encode(&beat)[..], [0, 172, 2, 5]);
    }

    #[test]
    fn a_loop_that_is_not_heard_is_silent_and_one_that_is_heard_is_not() {
        let mut neighbours = Neighbours::default();
        neighbours.lean(NodeId(2), LoopId(20), at(0));
        neighbours.lean(NodeId(3), LoopId(30), at(0));
        for now in [100, 200, 300, 400] {
            neighbours.hear(LoopId(20), at(now));
            assert!(neighbours.silent(at(now), LIMIT).is_empty(), "at {now}");
        }
        assert_eq!(neighbours.silent(at(500), LIMIT), [LoopId(30)]);
    }

    #[test]
    fn who_did_not_listen_itself_holds_nobody_for_silent() {
        let mut neighbours = Neighbours::default();
        neighbours.lean(NodeId(2), LoopId(20), at(0));
        assert!(neighbours.silent(at(5_000), LIMIT).is_empty());
        for now in [5_100, 5_200, 5_300, 5_400] {
            assert!(neighbours.silent(at(now), LIMIT).is_empty());
        }
        assert_eq!(neighbours.silent(at(5_500), LIMIT), [LoopId(20)]);
    }

    #[test]
    fn a_loop_is_known_as_long_as_a_group_is_shared_with_it() {
        let mut neighbours = Neighbours::default();
        neighbours.lean(NodeId(2), LoopId(20), at(0));
        neighbours.lean(NodeId(2), LoopId(20), at(0));
        neighbours.release(LoopId(20));
        assert_eq!(neighbours.on(NodeId(2)), [LoopId(20)]);
        neighbours.release(LoopId(20));
        neighbours.release(LoopId(20));
        neighbours.hear(LoopId(20), at(1));
        assert!(neighbours.is_empty());
    }
}
