//! How many large snapshots come to a node at a time, over all its loops: each is held in memory until it is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of a node for snapshots that come; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals(Arc<Places>);

#[derive(Debug)]
struct Places {
    taken: AtomicUsize,
    max: usize,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Arrival(Arc<Places>);

impl Arrivals {
    /// At least one place: a node that took in nothing could never have a member.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Places { taken: AtomicUsize::new(0), max: max.max(1) }))
    }

    /// A place, if one is free.
    pub(crate) fn enter(&self) -> Option<Arrival> {
        let Places { taken, max } = &*self.0;
        let more = |taken: usize| (taken < *max).then_some(taken + 1);
        let entered = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Arrival(Arc::clone(&self.0)))
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_is_free_again_once_it_is_left() {
        let arrivals = Arrivals::new(2);
        let (first, _second) = (arrivals.enter().unwrap(), arrivals.clone().enter().unwrap());
        assert!(arrivals.enter().is_none());
        drop(first);
        assert!(arrivals.enter().is_some_and(|_| arrivals.enter().is_none()));
        assert!(Arrivals::new(0).enter().is_some(), "one at least");
    }
}
