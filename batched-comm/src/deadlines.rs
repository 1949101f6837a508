//! Ends calls whose time is over: one timer for all calls of an endpoint.
//!
//! A timer a call costs as much as everything else about a call that is answered in time, which is nearly every one. So
//! there is one timer, set to the earliest deadline that was ever seen since it last went off; by then the call that set it is
//! usually answered, and the timer moves on to the earliest one that is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::shared::Shared;

/// No call is waited for.
const NEVER: u64 = u64::MAX;

/// The earliest deadline, as far as it matters.
pub(crate) struct Deadlines {
    /// What times are counted from.
    start: Instant,
    /// Nanoseconds from the start until the timer goes off.
    earliest_nanos: AtomicU64,
    /// Told when it is to go off earlier.
    moved: Arc<Notify>,
}

impl Deadlines {
    pub(crate) fn new(start: Instant) -> Deadlines {
        Deadlines { start, earliest_nanos: AtomicU64::new(NEVER), moved: Arc::default() }
    }

    /// Sees to it that the timer goes off at that time, or earlier. The call is in its table already.
    pub(crate) fn add(&self, deadline: Instant) {
        let nanos = self.nanos(deadline);
        if nanos < self.earliest_nanos.load(Ordering::Acquire)
            && nanos < self.earliest_nanos.fetch_min(nanos, Ordering::AcqRel)
        {
            self.moved.notify_one();
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(NEVER).min(NEVER - 1)
    }

    /// When the timer is to go off; `None` when there is nothing to wait for.
    fn earliest(&self) -> Option<Instant> {
        match self.earliest_nanos.load(Ordering::Acquire) {
            NEVER => None,
            nanos => self.start.checked_add(Duration::from_nanos(nanos)),
        }
    }

    /// Forgets the earliest deadline. What is added from now on is seen by the next look at
    /// [`earliest`](Deadlines::earliest); what was added before is in a table.
    fn clear(&self) {
        self.earliest_nanos.store(NEVER, Ordering::Release);
    }
}

/// Ends overdue calls until the endpoint is closed. When the runtime ends first, the endpoint is closed: whoever waits on
/// another runtime would wait for ever.
pub(crate) async fn end_overdue_calls(shared: Weak<Shared>) {
    let closing = ClosesAtEnd(shared);
    let Some(moved) = closing.0.upgrade().map(|shared| shared.deadlines.moved.clone()) else { return };
    loop {
        let Some(shared) = closing.0.upgrade().filter(|shared| !shared.is_closed()) else { return };
        let earliest = shared.deadlines.earliest();
        let now = Instant::now();
        if earliest.is_some_and(|earliest| earliest <= now) {
            shared.deadlines.clear();
            for peer in shared.peers() {
                if let Some(next) = peer.calls.fail_overdue(now) {
                    shared.deadlines.add(next);
                }
            }
            continue;
        }
        drop(shared);
        match earliest {
            // Either way there is a reason to look again.
            Some(earliest) => drop(timeout_at(earliest, moved.notified()).await),
            None => moved.notified().await,
        }
    }
}

/// Closes the endpoint when the task that holds it ends, however it ends.
struct ClosesAtEnd(Weak<Shared>);

impl Drop for ClosesAtEnd {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_set_to_the_earliest_deadline_since_it_was_cleared() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let deadlines = Deadlines::new(start);
        assert_eq!(deadlines.earliest(), None);
        deadlines.add(at(20));
        deadlines.add(at(30));
        assert_eq!(deadlines.earliest(), Some(at(20)));
        deadlines.add(at(10));
        assert_eq!(deadlines.earliest(), Some(at(10)));
        deadlines.clear();
        assert_eq!(deadlines.earliest(), None);
        deadlines.add(at(30));
        assert_eq!(deadlines.earliest(), Some(at(30)));
    }
}
