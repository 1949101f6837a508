//! The dumb twin: a list of buckets and a list of waiters in the order of coming.
//!
//! It predicts every answer that is given at once. Of the answers that come later it demands that each was due, in the
//! order of the line, and after each step that nobody still waits whose tokens are there or whose time is over: a
//! wake-up that is missed shows there.

use std::collections::BTreeMap;
use std::time::Duration;

use foretoken::{Rate, Take, TakeAllError, TakeError};
use proptest::prelude::*;

use crate::crowd::Answer;

pub(crate) const WAITERS_PER_BUCKET_MAX: u32 = 4;
pub(crate) const WAITERS_MAX: usize = 7;
const WAIT_MIN: u128 = 1_000_000;

/// What is asked of one bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) key: u8,
    pub(crate) period: u64,
    pub(crate) capacity: u32,
    pub(crate) n: u32,
    pub(crate) create: bool,
}

impl Ask {
    pub(crate) fn take(self) -> Take {
        let rate =
            Rate::one_per(Duration::from_nanos(self.period)).expect("periods of the test are above zero");
        let take = Take::new(rate, self.capacity).tokens(self.n);
        if self.create { take } else { take.existing_only() }
    }
}

/// A bucket of the twin. What it holds is counted in nanoseconds of its period.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dumb {
    pub(crate) held: u128,
    pub(crate) at: u128,
    pub(crate) period: u128,
    pub(crate) capacity: u128,
}

#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) caller: usize,
    pub(crate) key: u8,
    pub(crate) n: u128,
    pub(crate) deadline: Option<u128>,
}

#[derive(Debug, Default)]
pub(crate) struct Twin {
    pub(crate) now: u128,
    pub(crate) buckets: BTreeMap<u8, Dumb>,
    pub(crate) waiters: Vec<Waiter>,
}

impl Dumb {
    fn fill(&mut self, now: u128) {
        self.held = (self.held + now - self.at).min(self.capacity * self.period);
        self.at = now;
    }

    fn adopt(&mut self, ask: Ask) {
        let (period, capacity) = (u128::from(ask.period), u128::from(ask.capacity));
        if (self.period, self.capacity) != (period, capacity) {
            self.held = (self.held * period / self.period).min(period * capacity);
            (self.period, self.capacity) = (period, capacity);
        }
    }

    fn wait(&self, tokens: u128) -> u128 {
        (tokens * self.period).saturating_sub(self.held)
    }
}

impl Twin {
    pub(crate) fn bucket(&mut self, key: u8) -> Option<&mut Dumb> {
        let now = self.now;
        let bucket = self.buckets.get_mut(&key)?;
        bucket.fill(now);
        Some(bucket)
    }

    pub(crate) fn line(&self, key: u8) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter().filter(move |waiter| waiter.key == key)
    }

    /// What a take would be told, in nanoseconds of waiting; the new rate is in force from here on.
    pub(crate) fn ask(&mut self, ask: Ask) -> Result<u128, TakeError> {
        if ask.n > ask.capacity {
            return Err(TakeError::MoreThanCapacity { n: ask.n, capacity: ask.capacity });
        }
        let ahead: u128 = self.line(ask.key).map(|waiter| waiter.n).sum();
        match self.bucket(ask.key) {
            None if ask.create => Ok(0),
            None => Err(TakeError::NoSuchBucket),
            Some(bucket) => {
                bucket.adopt(ask);
                Ok(if ask.n == 0 { 0 } else { bucket.wait(ahead + u128::from(ask.n)) })
            }
        }
    }

    fn give(&mut self, ask: Ask) {
        if ask.n == 0 {
            return;
        }
        let (period, capacity) = (u128::from(ask.period), u128::from(ask.capacity));
        let full = Dumb { held: period * capacity, at: self.now, period, capacity };
        self.buckets.entry(ask.key).or_insert(full).held -= u128::from(ask.n) * period;
    }

    pub(crate) fn take(&mut self, ask: Ask) -> Answer {
        match self.ask(ask)? {
            0 => {
                self.give(ask);
                Ok(())
            }
            wait => Err(lacks(wait)),
        }
    }

    pub(crate) fn take_all(&mut self, asks: &[Ask]) -> Result<(), TakeAllError<u8>> {
        // Nothing is looked at before all requests make sense.
        let senseless = asks.iter().position(|ask| ask.n > ask.capacity);
        let mut worst: Option<(bool, u128, usize, TakeError)> = None;
        for (index, &ask) in
            asks.iter().enumerate().filter(|(index, _)| senseless.is_none_or(|s| s == *index))
        {
            let refused = match self.ask(ask) {
                Ok(0) => continue,
                Ok(wait) => (false, wait.max(WAIT_MIN), index, lacks(wait)),
                Err(error) => (true, 0, index, error),
            };
            if worst.as_ref().is_none_or(|worst| (refused.0, refused.1) > (worst.0, worst.1)) {
                worst = Some(refused);
            }
        }
        if let Some((_, _, index, error)) = worst {
            return Err(TakeAllError::Refused { key: asks[index].key, index, error });
        }
        asks.iter().for_each(|&ask| self.give(ask));
        Ok(())
    }

    /// What a caller that would wait is told at once; `None`: it is in line from now on.
    pub(crate) fn wait(&mut self, ask: Ask, wait_max: Option<u64>) -> Option<Answer> {
        let wait = match self.ask(ask) {
            Err(error) => return Some(Err(error)),
            Ok(0) => return Some(self.take(ask)),
            Ok(wait) => wait,
        };
        if wait_max.is_some_and(|wait_max| wait > u128::from(wait_max)) {
            return Some(Err(lacks(wait)));
        }
        for (waiting, limit) in
            [(self.line(ask.key).count(), WAITERS_PER_BUCKET_MAX as usize), (self.waiters.len(), WAITERS_MAX)]
        {
            if waiting >= limit {
                return Some(Err(TakeError::TooManyWaiters { limit }));
            }
        }
        None
    }

    /// Checks an answer that came later, and removes its waiter.
    pub(crate) fn came_back(&mut self, caller: usize, answer: Answer) -> Result<(), TestCaseError> {
        let place = self.waiters.iter().position(|waiter| waiter.caller == caller);
        let place = place.ok_or_else(|| TestCaseError::fail("an answer for nobody"))?;
        let (key, n) = (self.waiters[place].key, self.waiters[place].n);
        let now = self.now;
        let is_first = self.line(key).next().is_some_and(|first| first.caller == caller);
        let through: u128 =
            self.waiters[..=place].iter().filter(|waiter| waiter.key == key).map(|waiter| waiter.n).sum();
        let overdue = self.waiters[place].deadline.is_some_and(|deadline| deadline <= now);
        let bucket = self.bucket(key).ok_or_else(|| TestCaseError::fail("a bucket with a line is gone"))?;
        let wait = bucket.wait(n);
        match answer {
            Ok(()) => {
                prop_assert!(is_first, "overtaken");
                prop_assert!(n <= bucket.capacity && wait == 0, "tokens out of nothing");
                bucket.held -= n * bucket.period;
            }
            Err(TakeError::MoreThanCapacity { n: told, capacity }) => {
                prop_assert_eq!((u128::from(told), u128::from(capacity)), (n, bucket.capacity));
                prop_assert!(is_first && n > bucket.capacity);
            }
            Err(error) => {
                prop_assert!(overdue && !(is_first && wait == 0), "given up too early");
                prop_assert_eq!(error, lacks(bucket.wait(through)));
            }
        }
        self.waiters.remove(place);
        Ok(())
    }

    /// Nobody waits who could be served, sent away, or told that its time is over.
    pub(crate) fn check_nobody_is_forgotten(&mut self) -> Result<(), TestCaseError> {
        let now = self.now;
        let overdue =
            self.waiters.iter().find(|waiter| waiter.deadline.is_some_and(|deadline| deadline <= now));
        prop_assert!(overdue.is_none(), "left waiting beyond its time: {:?}", overdue);
        for key in self.buckets.keys().copied().collect::<Vec<_>>() {
            let Some(n) = self.line(key).next().map(|first| first.n) else { continue };
            let bucket = self.bucket(key).expect("the key is from the map");
            prop_assert!(n <= bucket.capacity && bucket.wait(n) > 0, "left waiting in front of {:?}", bucket);
        }
        Ok(())
    }

    /// Forgets what is full and waited for by nobody, and tells how many buckets that were.
    pub(crate) fn drop_idle(&mut self) -> usize {
        let before = self.buckets.len();
        for key in self.buckets.keys().copied().collect::<Vec<_>>() {
            let waited_for = self.line(key).next().is_some();
            let bucket = self.bucket(key).expect("the key is from the map");
            if !waited_for && bucket.held == bucket.period * bucket.capacity {
                self.buckets.remove(&key);
            }
        }
        before - self.buckets.len()
    }
}

fn lacks(wait: u128) -> TakeError {
    TakeError::NotEnoughTokens {
        wait: Duration::from_nanos(u64::try_from(wait.max(WAIT_MIN)).expect("waits of the test are short")),
    }
}
