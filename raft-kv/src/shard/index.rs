//! What a shard knows of its entries beside them: who wants to be woken when, and how many there are of each class.

use super::classes::{ClassCount, Classes};
use super::timers::{Alarm, Timers};
use crate::value_type::ValuePerKey;

/// Everything that is derived from the entries alone, so that whoever holds the entries can build it.
#[derive(Default)]
pub(super) struct Index {
    timers: Timers,
    classes: Classes,
}

/// Where a value stands in the index.
#[derive(Default)]
pub(super) struct Marks<'k> {
    wake_at: Option<u64>,
    class: Option<(&'k [u8], u64)>,
}

impl<'k> Marks<'k> {
    /// Those of the value of a key; none where there is no value.
    pub(super) fn of<V: ValuePerKey>(value_type: &V, key: &'k [u8], value: Option<&V::Value>) -> Self {
        value.map_or_else(Self::default, |value| Self {
            wake_at: value_type.wake_at(value),
            class: value_type.class(key, value),
        })
    }
}

impl Index {
    /// The value of a key stood here and now stands there.
    pub(super) fn moved(&mut self, key: &[u8], before: &Marks<'_>, after: &Marks<'_>) {
        self.timers.moved(key, before.wake_at, after.wake_at);
        self.classes.moved(before.class, after.class);
    }

    /// Takes over what another index holds; none of it is here.
    pub(super) fn join(&mut self, other: Index) {
        self.timers.join(other.timers);
        self.classes.join(other.classes);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.timers.clear();
        self.classes = Classes::default();
    }

    /// When the first value wants to be woken of those that are `served`.
    pub(super) fn next_wake(&self, served: impl Fn(&[u8]) -> bool) -> Option<u64> {
        self.timers.next(served)
    }

    /// The keys that are due and `served`, at most so many.
    pub(super) fn due(&self, now_ms: u64, keys_max: usize, served: impl Fn(&[u8]) -> bool) -> Vec<Box<[u8]>> {
        self.timers.due(now_ms, keys_max, served)
    }

    /// How many values of each class there are.
    pub(super) fn counts(&self) -> Vec<ClassCount> {
        self.classes.counts()
    }

    /// The same without those of another index, all of which are here too.
    pub(super) fn counts_without(&self, other: &Index) -> Vec<ClassCount> {
        self.classes.counts_without(&other.classes)
    }

    /// From now on this alarm is told when something becomes due.
    pub(super) fn set_alarm(&mut self, alarm: Alarm) {
        self.timers.set_alarm(alarm);
    }

    /// Tells the alarm anew when the first value wants to be woken: whoever looked while it was not served set it to
    /// nothing, or to a later one.
    pub(super) fn remind(&self) {
        self.timers.remind();
    }

    pub(super) fn alarm(&self) -> Alarm {
        self.timers.alarm()
    }
}
