//! What a shard shows to the harness of a simulation.

use raft_fleet::rafted_value::sim::show;

use super::ShardData;
use crate::sim::ShardShown;
use crate::value_type::ValuePerKey;

impl<V: ValuePerKey> ShardData<V> {
    /// Shows what it has come to, where somebody watches.
    pub(super) fn show(&self) {
        show(|| {
            let (outgoing, incoming) = (&self.moves.outgoing, &self.moves.incoming);
            let slots = self.range.into_iter().flat_map(|range| self.entries.range(range.hashes()));
            let keys = slots
                .flat_map(|(hash, slot)| slot.entries().iter().map(move |entry| (hash, entry.key.clone())));
            ShardShown {
                range: self.range,
                serves: self.serves(),
                sends: outgoing.as_ref().map(|outgoing| outgoing.range),
                receives: incoming.as_ref().map(|incoming| incoming.range),
                keys: keys.collect(),
            }
        });
    }
}
