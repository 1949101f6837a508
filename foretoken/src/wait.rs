//! Waiting for tokens: first come, first served, one line a bucket.
//!
//! Only the first of a line sleeps until the bucket holds what it wants; the others sleep until they are first. A
//! waiter takes in the very poll that completes it, so that one that is dropped has taken nothing and only gives up
//! its place. Reserving tokens ahead of time, by pushing the bucket into debt, was rejected: those behind a waiter
//! that gives up would not move forward, and a new rate would reinterpret the debt.
//!
//! A waiter remembers how many tokens it wants, not the rate: the rate in force is the newest call's. Whoever changes
//! it wakes the first of the line, which then sleeps anew.

use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::bucket::not_enough;
use crate::clock::Sleep;
use crate::error::TakeError;
use crate::foretoken::{Foretoken, nanos};
use crate::take::Take;

impl<K: Hash + Eq + Clone, S: BuildHasher> Foretoken<K, S> {
    /// Takes the tokens that `take` describes as soon as the bucket holds them.
    ///
    /// First come, first served: the place in the bucket's line is taken at the first poll, and neither a later
    /// waiter nor a plain take gets tokens that are needed for those before it. Dropping the future gives back the
    /// place and takes nothing. A future that is neither polled nor dropped keeps its place, and those behind it wait.
    ///
    /// Only the number of tokens is fixed by the call; the rate and the capacity in force are the newest call's.
    ///
    /// # Errors
    /// Every [`TakeError`] but [`TakeError::NotEnoughTokens`], at once; and [`TakeError::MoreThanCapacity`] after a
    /// while, if a later call has made the capacity smaller than the tokens waited for.
    pub async fn take_or_wait(&self, key: &K, take: Take) -> Result<(), TakeError> {
        Waiting { buckets: self, key, take, wait_max: None, place: None, sleep: None }.await
    }

    /// The same, but waits no longer than `wait_max`.
    ///
    /// # Errors
    /// Those of [`take_or_wait`](Foretoken::take_or_wait), and [`TakeError::NotEnoughTokens`] at once if those in line
    /// and this call together need longer than `wait_max` at the present rate, or when `wait_max` is over.
    pub async fn take_or_wait_for(&self, key: &K, take: Take, wait_max: Duration) -> Result<(), TakeError> {
        let wait_max = Some(nanos(wait_max));
        Waiting { buckets: self, key, take, wait_max, place: None, sleep: None }.await
    }
}

/// One waiting call.
struct Waiting<'a, K: Hash + Eq + Clone, S: BuildHasher> {
    buckets: &'a Foretoken<K, S>,
    key: &'a K,
    take: Take,
    /// How long to wait at most, in nanoseconds.
    wait_max: Option<u64>,
    place: Option<Place>,
    /// The sleep under way, and until when.
    sleep: Option<(u64, Sleep)>,
}

/// A place in the line of a bucket.
struct Place {
    hash: u64,
    ticket: u64,
    deadline_nanos: Option<u64>,
}

/// What a look at the line comes to.
enum Look {
    /// Over, with this answer. The place is given up.
    Done(Result<(), TakeError>),
    /// Look again at this time, or when woken.
    At(Option<u64>),
}

impl<K: Hash + Eq + Clone, S: BuildHasher> Future for Waiting<'_, K, S> {
    type Output = Result<(), TakeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Twice: once more when a sleep is over. A clock that says so all the time does not keep the thread here.
        for _ in 0..2 {
            let at_nanos = match this.look(cx.waker()) {
                Look::Done(answer) => return Poll::Ready(answer),
                Look::At(at_nanos) => at_nanos,
            };
            if this.sleep.as_ref().map(|(at_nanos, _)| *at_nanos) != at_nanos {
                this.sleep = at_nanos.map(|at_nanos| (at_nanos, this.buckets.clock.sleep_until(at_nanos)));
            }
            let slept = this.sleep.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
            if !slept {
                return Poll::Pending;
            }
            this.sleep = None;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<K: Hash + Eq + Clone, S: BuildHasher> Drop for Waiting<'_, K, S> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.leave(&place);
        }
    }
}

impl<K: Hash + Eq + Clone, S: BuildHasher> Waiting<'_, K, S> {
    fn look(&mut self, waker: &Waker) -> Look {
        let now_nanos = self.buckets.now_nanos();
        let look = match &self.place {
            None => self.arrive(now_nanos, waker),
            Some(place) => self.look_from(place, now_nanos, waker),
        };
        if matches!(look, Look::Done(_))
            && let Some(place) = self.place.take()
        {
            self.leave(&place);
        }
        look
    }

    /// Takes at once, or goes to the end of the line.
    fn arrive(&mut self, now_nanos: u64, waker: &Waker) -> Look {
        let (buckets, take, key) = (self.buckets, self.take, self.key);
        let fill_nanos = match take.fill_nanos() {
            Ok(fill_nanos) => fill_nanos,
            Err(error) => return Look::Done(Err(error)),
        };
        let hash = buckets.hasher.hash_one(key);
        let mut first = None;
        let answer =
            buckets.take_in(&mut buckets.shard(hash), hash, now_nanos, key, take, fill_nanos, &mut first);
        let look = match answer {
            Err(TakeError::NotEnoughTokens { .. }) => {
                self.join(hash, now_nanos, fill_nanos, waker, &mut first)
            }
            answer => Look::Done(answer),
        };
        if let Some(first) = first {
            first.wake();
        }
        buckets.sweep_some(now_nanos);
        look
    }

    /// Takes after all, or goes to the end of the line.
    fn join(
        &mut self,
        hash: u64,
        now_nanos: u64,
        fill_nanos: u64,
        waker: &Waker,
        first: &mut Option<Waker>,
    ) -> Look {
        let (buckets, take, key) = (self.buckets, self.take, self.key);
        // Code of somebody else: outside of the lock.
        let (own_waker, own_key) = (waker.clone(), key.clone());
        let mut shard = buckets.shard(hash);
        match buckets.take_in(&mut shard, hash, now_nanos, key, take, fill_nanos, first) {
            Err(TakeError::NotEnoughTokens { .. }) => {}
            answer => return Look::Done(answer),
        }
        let ahead = shard.line(hash, key).map_or(0, |line| line.tokens());
        let Some(bucket) = shard.bucket(hash, key) else { return Look::Done(Err(TakeError::NoSuchBucket)) };
        let ready_at_nanos = bucket.holds_at_nanos(now_nanos, ahead.saturating_add(u64::from(take.n)));
        let wait_nanos = ready_at_nanos.saturating_sub(now_nanos);
        if self.wait_max.is_some_and(|wait_max| wait_nanos > wait_max) {
            return Look::Done(Err(not_enough(Duration::from_nanos(wait_nanos))));
        }
        let is_first = bucket.waiters() == 0;
        let limit = buckets.config.waiters_per_bucket_max;
        if bucket.waiters() >= limit {
            return Look::Done(Err(TakeError::TooManyWaiters { limit: limit as usize }));
        }
        if let Err(error) = buckets.count_waiter() {
            return Look::Done(Err(error));
        }
        let ticket = shard.join(hash, own_key, take.n, own_waker, |key| buckets.hasher.hash_one(key));
        let deadline_nanos = self.wait_max.map(|wait_max| now_nanos.saturating_add(wait_max));
        self.place = Some(Place { hash, ticket, deadline_nanos });
        Look::At(earlier(is_first.then_some(ready_at_nanos), deadline_nanos))
    }

    /// Takes, if this is the first and the bucket holds enough.
    fn look_from(&self, place: &Place, now_nanos: u64, waker: &Waker) -> Look {
        let &Place { hash, ticket, deadline_nanos } = place;
        // Wakers are code of somebody else: cloned before the lock, dropped after it.
        let (mut own_waker, mut replaced) = (Some(waker.clone()), None);
        let looked = self.buckets.shard(hash).update(hash, self.key, |bucket, line| {
            let Some(line) = line else { return Look::Done(Err(TakeError::NoSuchBucket)) };
            let mut ready_at_nanos = None;
            if line.is_first(ticket) {
                let take = bucket.take_in_force(self.take.n);
                if let Err(error) = take.fill_nanos() {
                    return Look::Done(Err(error));
                }
                match bucket.take(now_nanos, take) {
                    Err(TakeError::NotEnoughTokens { .. }) => {}
                    answer => return Look::Done(answer),
                }
                ready_at_nanos = Some(bucket.holds_at_nanos(now_nanos, u64::from(take.n)));
            }
            if deadline_nanos.is_some_and(|deadline_nanos| deadline_nanos <= now_nanos) {
                let ready_at_nanos = bucket.holds_at_nanos(now_nanos, line.tokens_through(ticket));
                let wait_nanos = ready_at_nanos.saturating_sub(now_nanos);
                return Look::Done(Err(not_enough(Duration::from_nanos(wait_nanos))));
            }
            replaced = own_waker.take().and_then(|own_waker| line.set_waker(ticket, own_waker));
            Look::At(earlier(ready_at_nanos, deadline_nanos))
        });
        drop((own_waker, replaced));
        looked.unwrap_or(Look::Done(Err(TakeError::NoSuchBucket)))
    }

    fn leave(&self, place: &Place) {
        // The lock is released at the end of this line: wakers are code of somebody else.
        let (first, own) = self.buckets.shard(place.hash).leave(place.hash, self.key, place.ticket);
        drop(own);
        self.buckets.waiters.fetch_sub(1, Ordering::Relaxed);
        if let Some(first) = first {
            first.wake();
        }
    }
}

impl<K: Hash + Eq + Clone, S: BuildHasher> Foretoken<K, S> {
    /// Counts one more waiting caller, if that is within the limit.
    fn count_waiter(&self) -> Result<(), TakeError> {
        let limit = self.config.waiters_max;
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        let counted = self.waiters.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.map(drop).map_err(|_| TakeError::TooManyWaiters { limit })
    }
}

/// The earlier of two times that may be missing.
fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
