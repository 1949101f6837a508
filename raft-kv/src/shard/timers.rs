//! Which keys want to be woken when: an index over the values of a shard.
//!
//! It is derived from the values alone ([`ValuePerKey::wake_at`](crate::ValuePerKey::wake_at)), so that snapshots, splits
//! and merges carry nothing for it: whoever holds the values holds their timers. Finding what is due costs in
//! proportion to what is due, not to the keys that are there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The keys of a shard that have a timer, by when they are due.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeSet<(u64, Box<[u8]>)>,
    alarm: Alarm,
}

impl Timers {
    /// The timer of a key was at one time and is now at another, or at none.
    pub(super) fn moved(&mut self, key: &[u8], before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            let was_there = self.due.remove(&(at, key.into()));
            debug_assert!(was_there, "a timer that moves is in the index");
        }
        if let Some(at) = after {
            self.due.insert((at, key.into()));
            self.alarm.ring_at(at);
        }
    }

    /// When the first key is due that is `served`, in milliseconds since 1970.
    pub(super) fn next(&self, served: impl Fn(&[u8]) -> bool) -> Option<u64> {
        self.due.iter().find(|(_, key)| served(key)).map(|(at, _)| *at)
    }

    /// The keys that are due at `now_ms` and `served`, the longest first, at most `keys_max` of them.
    pub(super) fn due(&self, now_ms: u64, keys_max: usize, served: impl Fn(&[u8]) -> bool) -> Vec<Box<[u8]>> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now_ms).filter(|(_, key)| served(key));
        due.take(keys_max).map(|(_, key)| key.clone()).collect()
    }

    /// Takes over the timers of keys that have none here; in proportion to all of them, but to nothing where this has
    /// none.
    pub(super) fn join(&mut self, mut other: Timers) {
        if let Some((at, _)) = other.due.first() {
            self.alarm.ring_at(*at);
        }
        self.due.append(&mut other.due);
    }

    pub(super) fn clear(&mut self) {
        self.due = BTreeSet::new();
    }

    /// From now on this alarm is told when something becomes due, beginning with what is there.
    pub(super) fn set_alarm(&mut self, alarm: Alarm) {
        self.alarm = alarm;
        self.remind();
    }

    /// Tells the alarm anew when the first key is due.
    pub(super) fn remind(&self) {
        if let Some((at, _)) = self.due.first() {
            self.alarm.ring_at(*at);
        }
    }

    pub(super) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }
}

/// The earliest time at which any shard of a node may have something due; not replicated. It may ring too early, never
/// too late, so that nobody needs to look at thousands of shards in which nothing happens.
#[derive(Clone, Debug)]
pub(crate) struct Alarm(Arc<AtomicU64>);

impl Default for Alarm {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Alarm {
    /// Makes sure that it rings at `at_ms` at the latest.
    pub(crate) fn ring_at(&self, at_ms: u64) {
        self.0.fetch_min(at_ms, Ordering::AcqRel);
    }

    /// Whether it rings at `now_ms`; if so it is silent until it is set again.
    pub(crate) fn rings(&self, now_ms: u64) -> bool {
        if self.0.load(Ordering::Acquire) > now_ms {
            return false;
        }
        self.0.store(u64::MAX, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_the_order_of_its_time_and_no_more_than_asked_for() {
        let mut timers = Timers::default();
        for (key, at) in [("c", 30), ("a", 10), ("b", 20)] {
            timers.moved(key.as_bytes(), None, Some(at));
        }
        let all = |_: &[u8]| true;
        assert_eq!(timers.next(all), Some(10));
        assert_eq!(timers.due(9, 10, all), []);
        assert_eq!(timers.due(20, 10, all), [b"a"[..].into(), b"b"[..].into()]);
        assert_eq!(timers.due(30, 1, all), [b"a"[..].into()]);
        let but_a = |key: &[u8]| key != b"a";
        assert_eq!((timers.next(but_a), timers.due(30, 1, but_a)), (Some(20), vec![b"b"[..].into()]));
        timers.moved(b"a", Some(10), None);
        timers.moved(b"b", Some(20), Some(40));
        assert_eq!(timers.due(40, 10, all), [b"c"[..].into(), b"b"[..].into()]);
    }

    #[test]
    fn an_alarm_rings_once_at_the_earliest_time_it_was_set_to() {
        let alarm = Alarm::default();
        assert!(!alarm.rings(u64::MAX - 1));
        let mut timers = Timers::default();
        timers.moved(b"a", None, Some(7));
        timers.set_alarm(alarm.clone());
        timers.moved(b"b", None, Some(5));
        assert!(!alarm.rings(4));
        assert!(alarm.rings(5));
        assert!(!alarm.rings(100));
    }
}
