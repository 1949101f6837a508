//! What there is of a range on its way in, counted and indexed chunk by chunk, so that nothing is left to count when the
//! last one comes: nobody serves the range just then.

use super::entries::{Counts, Entries, Slot};
use super::index::{Index, Marks};
use super::moves::Incoming;
use crate::key_range::KeyRange;
use crate::value_type::ValuePerKey;

/// Derived from the entries that have arrived; they are neither served nor woken yet.
#[derive(Default)]
pub(super) struct Arriving {
    pub(super) counts: Counts,
    pub(super) index: Index,
}

impl Arriving {
    /// What has arrived so far.
    pub(super) fn of<V: ValuePerKey>(
        value_type: &V,
        entries: &Entries<V::Value>,
        incoming: Option<Incoming>,
    ) -> Self {
        let mut arriving = Self::default();
        let Some(Incoming { range, progress }) = incoming else { return arriving };
        let arrived = progress.copied.and_then(|copied| KeyRange::new(range.first(), copied));
        for (_, slot) in arrived.iter().flat_map(|arrived| entries.range(arrived.hashes())) {
            arriving.add(value_type, slot);
        }
        arriving
    }

    pub(super) fn add<V: ValuePerKey>(&mut self, value_type: &V, slot: &Slot<V::Value>) {
        for entry in slot.entries() {
            let marks = Marks::of(value_type, &entry.key, entry.value.as_ref());
            self.index.moved(&entry.key, &Marks::default(), &marks);
            self.counts.add(entry.size);
        }
    }

    pub(super) fn remove<V: ValuePerKey>(&mut self, value_type: &V, slot: &Slot<V::Value>) {
        for entry in slot.entries() {
            let marks = Marks::of(value_type, &entry.key, entry.value.as_ref());
            self.index.moved(&entry.key, &marks, &Marks::default());
            self.counts.remove(entry.size);
        }
    }
}
