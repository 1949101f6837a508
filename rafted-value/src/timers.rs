//! When each group wants to be stepped, so that a turn costs nothing for those that do not.

use std::collections::BTreeMap;

use crate::env::MonoTime;
use crate::id::GroupId;

/// Groups by the time at which they are looked at next.
///
/// A group that wants an earlier time is entered again, and one that wants a later time stays where it is and is asked
/// when its time comes: beats move a follower's deadline far more often than it is reached.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeMap<MonoTime, Vec<GroupId>>);

impl Timers {
    pub(crate) fn enter(&mut self, due: MonoTime, group: GroupId) {
        self.0.entry(due).or_default().push(group);
    }

    /// The next time at which a group may be due.
    pub(crate) fn next(&self) -> Option<MonoTime> {
        self.0.first_key_value().map(|(due, _)| *due)
    }

    /// The groups that were entered for the earliest time, if that has come.
    pub(crate) fn take_due(&mut self, now: MonoTime) -> Option<(MonoTime, Vec<GroupId>)> {
        let first = self.0.first_entry().filter(|first| *first.key() <= now)?;
        Some(first.remove_entry())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_in_the_order_of_their_times_and_not_before() {
        let at = MonoTime::from_nanos;
        let mut timers = Timers::default();
        timers.enter(at(20), GroupId(1));
        timers.enter(at(10), GroupId(2));
        timers.enter(at(20), GroupId(3));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.take_due(at(9)), None);
        assert_eq!(timers.take_due(at(30)), Some((at(10), vec![GroupId(2)])));
        assert_eq!(timers.take_due(at(30)), Some((at(20), vec![GroupId(1), GroupId(3)])));
        assert_eq!(timers.next(), None);
    }
}
