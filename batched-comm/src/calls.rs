//! The calls to one peer that wait for an answer.

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::Failure;
use crate::frame::Outcome;
use crate::lane::Lane;

/// What a waiting caller is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The receiver answered.
    Outcome(Outcome),
    /// The connection broke after the call had been taken for sending.
    Lost,
    /// The call was still queued here when the peer turned out to be out of reach.
    NotSent(Failure),
    /// Its time is over.
    TimedOut,
}

/// A table of calls by correlation.
///
/// A correlation is a slot's number and a generation that starts at random and counts the slot's uses, so that
/// a late answer never meets another call.
pub(crate) struct CallTable {
    slots: Mutex<Slots>,
    calls_max: usize,
}

struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    first_generation: u32,
}

struct Slot {
    generation: u32,
    lane: Lane,
    /// The frame's number in its lane's queue: tells whether it has been taken for sending.
    sequence: u64,
    deadline: Instant,
    waiter: Option<oneshot::Sender<Answer>>,
}

impl CallTable {
    /// An empty table for at most `calls_max` calls; `first_generation` is random.
    pub(crate) fn new(calls_max: usize, first_generation: u32) -> CallTable {
        let slots = Slots { slots: Vec::new(), free: Vec::new(), first_generation };
        CallTable { slots: Mutex::new(slots), calls_max }
    }

    /// Enters a call and returns its correlation, and how many calls wait with it; `None` when the table is full.
    pub(crate) fn insert(
        &self,
        lane: Lane,
        sequence: u64,
        deadline: Instant,
        waiter: oneshot::Sender<Answer>,
    ) -> Option<(u64, usize)> {
        let mut table = self.slots.lock();
        let table = &mut *table;
        let index = match table.free.pop() {
            Some(index) => index,
            None if table.slots.len() >= self.calls_max => return None,
            None => {
                let index = table.slots.len() as u32;
                let generation = table.first_generation;
                table.slots.push(Slot { generation, lane, sequence, deadline, waiter: None });
                index
            }
        };
        let slot = &mut table.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.lane = lane;
        slot.sequence = sequence;
        slot.deadline = deadline;
        slot.waiter = Some(waiter);
        let correlation = u64::from(slot.generation) << 32 | u64::from(index);
        Some((correlation, table.slots.len() - table.free.len()))
    }

    /// Calls that wait for an answer.
    pub(crate) fn in_flight(&self) -> usize {
        let table = self.slots.lock();
        table.slots.len() - table.free.len()
    }

    /// Takes a call out; `None` when it is not waiting any more.
    pub(crate) fn remove(&self, correlation: u64) -> Option<oneshot::Sender<Answer>> {
        let mut table = self.slots.lock();
        let index = correlation as u32;
        let slot = table.slots.get_mut(index as usize)?;
        if u64::from(slot.generation) != correlation >> 32 {
            return None;
        }
        let waiter = slot.waiter.take()?;
        table.free.push(index);
        Some(waiter)
    }

    /// Takes out every call that was taken for sending before the given numbers, by lane, and tells it is lost.
    /// Returns how many.
    pub(crate) fn fail_sent(&self, taken: [u64; 3]) -> u64 {
        let lost = self.take_where(|slot| slot.sequence < taken[slot.lane.index()]);
        let count = lost.len() as u64;
        for waiter in lost {
            // A caller that gave up is not waiting.
            let _ = waiter.send(Answer::Lost);
        }
        count
    }

    /// Takes out every call whose deadline has come and tells so; returns the next deadline.
    pub(crate) fn fail_overdue(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let overdue = self.take_where(|slot| {
            let is_overdue = slot.deadline <= now;
            if !is_overdue {
                next = Some(next.map_or(slot.deadline, |next| next.min(slot.deadline)));
            }
            is_overdue
        });
        for waiter in overdue {
            // A caller that gave up is not waiting.
            let _ = waiter.send(Answer::TimedOut);
        }
        next
    }

    /// Takes out every call and tells that it was not sent. Returns how many.
    pub(crate) fn fail_queued(&self, failure: &Failure) -> u64 {
        let failed = self.take_where(|_| true);
        let count = failed.len() as u64;
        for waiter in failed {
            // A caller that gave up is not waiting.
            let _ = waiter.send(Answer::NotSent(failure.clone()));
        }
        count
    }

    fn take_where(&self, mut takes: impl FnMut(&Slot) -> bool) -> Vec<oneshot::Sender<Answer>> {
        let mut table = self.slots.lock();
        let table = &mut *table;
        let mut taken = Vec::new();
        for (index, slot) in table.slots.iter_mut().enumerate() {
            if slot.waiter.is_some() && takes(slot) {
                taken.extend(slot.waiter.take());
                table.free.push(index as u32);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_never_meets_another_call() {
        let calls = CallTable::new(10, u32::MAX);
        let (first, _waiting) = oneshot::channel();
        let (old, _) = calls.insert(Lane::Normal, 0, Instant::now(), first).unwrap();
        assert!(calls.remove(old).is_some());
        let (second, _waiting) = oneshot::channel();
        let (new, _) = calls.insert(Lane::Normal, 1, Instant::now(), second).unwrap();
        assert_eq!(old as u32, new as u32, "the slot is used again");
        assert!(calls.remove(old).is_none());
        assert!(calls.remove(new).is_some());
    }

    #[test]
    fn only_calls_that_were_taken_for_sending_are_lost() {
        let calls = CallTable::new(10, 0);
        let (sent, mut sent_answer) = oneshot::channel();
        let (queued, mut queued_answer) = oneshot::channel();
        calls.insert(Lane::Normal, 4, Instant::now(), sent).unwrap();
        calls.insert(Lane::Normal, 5, Instant::now(), queued).unwrap();
        assert_eq!(calls.fail_sent([9, 5, 9]), 1);
        assert!(matches!(sent_answer.try_recv(), Ok(Answer::Lost)));
        assert!(queued_answer.try_recv().is_err());
        assert_eq!(calls.fail_queued(&Failure::NoAddress), 1);
        assert!(matches!(queued_answer.try_recv(), Ok(Answer::NotSent(Failure::NoAddress))));
    }

    #[test]
    fn a_full_table_takes_no_call() {
        let calls = CallTable::new(1, 0);
        let (waiter, _waiting) = oneshot::channel();
        let (correlation, _) = calls.insert(Lane::Control, 0, Instant::now(), waiter).unwrap();
        let (waiter, _waiting) = oneshot::channel();
        assert!(calls.insert(Lane::Control, 1, Instant::now(), waiter).is_none());
        calls.remove(correlation);
        let (waiter, _waiting) = oneshot::channel();
        assert!(calls.insert(Lane::Control, 2, Instant::now(), waiter).is_some());
    }

    #[test]
    fn calls_end_at_their_deadline_and_the_next_one_is_known() {
        let calls = CallTable::new(10, 0);
        let start = Instant::now();
        let at = |millis| start + std::time::Duration::from_millis(millis);
        assert_eq!(calls.fail_overdue(start), None);
        let waiting = [30, 10, 20].map(|millis| {
            let (waiter, waiting) = oneshot::channel();
            (calls.insert(Lane::Normal, millis, at(millis), waiter).unwrap(), waiting)
        });
        let [((_, first), mut late), ((_, second), mut early), ((answered, _), mut between)] = waiting;
        assert_eq!((first, second), (1, 2), "calls in flight");
        assert_eq!(calls.fail_overdue(at(9)), Some(at(10)));
        assert_eq!(calls.fail_overdue(at(10)), Some(at(20)));
        assert!(matches!(early.try_recv(), Ok(Answer::TimedOut)));
        drop(calls.remove(answered));
        assert_eq!(calls.fail_overdue(at(20)), Some(at(30)), "an answered call has no deadline any more");
        assert!(between.try_recv().is_err() && late.try_recv().is_err());
        assert_eq!(calls.fail_overdue(at(31)), None);
        assert!(matches!(late.try_recv(), Ok(Answer::TimedOut)));
        assert_eq!(calls.in_flight(), 0);
    }
}
