//! Who is to be woken at which time: what the clocks of this crate sleep with.
//!
//! Pure bookkeeping. A clock decides when to ring, and wakes what it is given after its lock is released: a waker is
//! code of somebody else.

use std::collections::BTreeMap;
use std::task::Waker;

/// Wakers by the time at which they ring, and by the order in which they came.
#[derive(Default)]
pub(crate) struct Alarms {
    next_id: u64,
    wakers: BTreeMap<(u64, u64), Waker>,
}

/// Names one alarm for as long as it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AlarmId {
    at_nanos: u64,
    id: u64,
}

impl Alarms {
    /// Sets an alarm, or gives the one of `id` another waker. Answers the waker that was replaced, to be dropped
    /// outside of any lock.
    pub(crate) fn set(
        &mut self,
        at_nanos: u64,
        id: Option<AlarmId>,
        waker: Waker,
    ) -> (AlarmId, Option<Waker>) {
        let id = id.unwrap_or_else(|| {
            self.next_id += 1;
            AlarmId { at_nanos, id: self.next_id }
        });
        let replaced = self.wakers.insert((id.at_nanos, id.id), waker);
        (id, replaced)
    }

    /// Takes an alarm back, if it has not rung.
    pub(crate) fn cancel(&mut self, id: AlarmId) -> Option<Waker> {
        self.wakers.remove(&(id.at_nanos, id.id))
    }

    /// Everybody whose time has come, first who rings first.
    pub(crate) fn take_due(&mut self, now_nanos: u64) -> Vec<Waker> {
        let later = self.wakers.split_off(&(now_nanos.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.wakers, later);
        due.into_values().collect()
    }

    /// When the next alarm rings.
    pub(crate) fn next_at_nanos(&self) -> Option<u64> {
        self.wakers.first_key_value().map(|(&(at_nanos, _), _)| at_nanos)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_alarm_rings_once_at_its_time_unless_it_is_cancelled() {
        let mut alarms = Alarms::default();
        let rung = Arc::new(Count::default());
        let (first, _) = alarms.set(10, None, rung.clone().into());
        let (second, _) = alarms.set(10, None, rung.clone().into());
        alarms.set(20, None, rung.clone().into());
        assert_ne!(first, second);
        assert!(alarms.set(10, Some(second), rung.clone().into()).1.is_some());
        assert!(alarms.cancel(first).is_some());
        assert!(alarms.cancel(first).is_none());
        assert_eq!(alarms.next_at_nanos(), Some(10));
        assert_eq!(alarms.take_due(9).len(), 0);
        assert_eq!(alarms.take_due(10).len(), 1);
        assert_eq!(alarms.next_at_nanos(), Some(20));
        alarms.set(u64::MAX - 1, None, rung.into());
        assert_eq!(alarms.take_due(u64::MAX - 1).len(), 2);
        assert_eq!(alarms.next_at_nanos(), None);
    }
}
