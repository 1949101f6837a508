//! One bucket: the bridge to governor's cell rate algorithm, and what happens when rate or capacity change.
//!
//! Governor fixes the rate when a limiter is made; here it comes with each call. So the limiter is made at each call
//! (it is a few words on the stack) over a view of one bucket: a `StateStore` of a single cell. The view's clock starts
//! at zero, the origin that every arrival time is counted from, and is then moved to the time of the call.
//!
//! An arrival time means nothing without the rate it was written at, so a bucket keeps both, and the capacity. A call
//! with another rate or capacity first settles the bucket: the tokens that it holds now, fractions included, stay what
//! they are. A larger capacity is not filled for free, a smaller one drops what does not fit, and time that has passed
//! counts at the rate that was in force. A bucket that kept its debt instead of its tokens would hand out a fresh
//! burst each time the capacity goes down and up.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::error::TakeError;
use crate::limits::{Limits, LimitsId};
use crate::rate::Rate;
use crate::take::Take;

/// The shortest wait that is ever told to a caller.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The state of one bucket. A [`Packed`] one lies in the table.
///
/// Invariant: `capacity * period` is at most 2^62 ns, and `arrival_nanos` at most that much after the newest time at
/// which the bucket was touched.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// When the bucket will be full: the theoretical arrival time of the algorithm, in nanoseconds of the clock.
    arrival_nanos: u64,
    pub(crate) limits: Limits,
    /// How many wait in the bucket's line. A bucket with a line is never dropped.
    waiters: u32,
}

impl Bucket {
    /// A full bucket that nobody waits for.
    pub(crate) fn full(now_nanos: u64, rate: Rate, capacity: u32) -> Bucket {
        Bucket { arrival_nanos: now_nanos, limits: Limits { rate, capacity }, waiters: 0 }
    }

    /// The request for `n` tokens at the rate and capacity in force.
    pub(crate) fn take_in_force(&self, n: u32) -> Take {
        Take::new(self.limits.rate, self.limits.capacity).tokens(n)
    }

    /// Puts the rate and the capacity of `take` in force, and tells whether they are others than before.
    ///
    /// `fill_nanos` is what [`Take::fill_nanos`] has answered for `take`.
    #[inline]
    pub(crate) fn adopt(&mut self, now_nanos: u64, take: Take, fill_nanos: u64) -> bool {
        let other = self.limits != take.limits();
        if other {
            self.settle(now_nanos, take.limits(), fill_nanos);
        }
        other
    }

    /// Takes `take.n` tokens or none; the rate and the capacity of `take` are in force.
    #[inline]
    pub(crate) fn take(&mut self, now_nanos: u64, take: Take) -> Result<(), TakeError> {
        debug_assert!(self.limits == take.limits(), "adopted before");
        let (Some(n), Some(capacity)) = (NonZeroU32::new(take.n), NonZeroU32::new(take.capacity)) else {
            return Ok(());
        };
        let quota = Quota::with_period(take.rate.period())
            .expect("the period of a rate is above zero")
            .allow_burst(capacity);
        let view = View { arrival_nanos: Cell::new(self.arrival_nanos) };
        let limiter: Limiter = RateLimiter::new(quota, view, ViewClock::at_origin());
        limiter.clock().move_to(now_nanos);
        match limiter.check_n(n) {
            Ok(Ok(())) => {
                self.arrival_nanos = limiter.into_state_store().arrival_nanos.get();
                Ok(())
            }
            Ok(Err(not_until)) => Err(not_enough(not_until.wait_time_from(Nanos::new(now_nanos)))),
            Err(_) => Err(TakeError::MoreThanCapacity { n: take.n, capacity: take.capacity }),
        }
    }

    /// Carries the tokens of this moment over to another rate and capacity.
    ///
    /// Fractions of a token are rounded down to whole nanoseconds of the new rate, so that changing rates to and fro
    /// never makes a token. This is kept even if the take that follows is refused: the wait that it is told counts on
    /// the new rate being in force.
    #[cold]
    fn settle(&mut self, now_nanos: u64, limits: Limits, fill_nanos: u64) {
        let old_period = self.limits.rate.period_nanos();
        let old_fill = old_period * u64::from(self.limits.capacity);
        let held = old_fill.saturating_sub(self.arrival_nanos.saturating_sub(now_nanos));
        let held = u128::from(held) * u128::from(limits.rate.period_nanos()) / u128::from(old_period);
        let missing = u64::try_from(held).map_or(0, |held| fill_nanos.saturating_sub(held));
        *self = Bucket { arrival_nanos: now_nanos + missing, limits, ..*self };
    }

    /// Takes `take.n` tokens or none, and leaves `ahead` tokens to those who wait in line.
    pub(crate) fn take_after(&mut self, now_nanos: u64, take: Take, ahead: u64) -> Result<(), TakeError> {
        let ready_at_nanos = self.holds_at_nanos(now_nanos, ahead.saturating_add(u64::from(take.n)));
        if ahead > 0 && take.n > 0 && ready_at_nanos > now_nanos {
            return Err(not_enough(Duration::from_nanos(ready_at_nanos - now_nanos)));
        }
        self.take(now_nanos, take)
    }

    /// When the bucket will have brought in `tokens`, which may be more than fit at once; now or earlier if it has.
    pub(crate) fn holds_at_nanos(&self, now_nanos: u64, tokens: u64) -> u64 {
        let period = u128::from(self.limits.rate.period_nanos());
        let owed_until = u128::from(self.arrival_nanos.max(now_nanos)) + u128::from(tokens) * period;
        let at_nanos = owed_until.saturating_sub(u128::from(self.limits.capacity) * period);
        u64::try_from(at_nanos).unwrap_or(u64::MAX)
    }

    /// The whole tokens that the bucket holds now.
    pub(crate) fn held(&self, now_nanos: u64) -> u32 {
        let period = self.limits.rate.period_nanos();
        let missing_nanos = self.arrival_nanos.saturating_sub(now_nanos);
        let missing = u32::try_from(missing_nanos.div_ceil(period)).unwrap_or(u32::MAX);
        self.limits.capacity.saturating_sub(missing)
    }

    /// How many wait in line.
    #[inline]
    pub(crate) fn waiters(&self) -> u32 {
        self.waiters
    }

    /// Counts one more in line.
    pub(crate) fn add_waiter(&mut self) {
        self.waiters = self.waiters.saturating_add(1);
    }

    /// Counts one less in line.
    pub(crate) fn remove_waiter(&mut self) {
        debug_assert!(self.waiters > 0, "whoever leaves has been counted");
        self.waiters = self.waiters.saturating_sub(1);
    }

    /// The bucket as it lies in the table, its limits named by `limits`.
    #[inline]
    pub(crate) fn packed(&self, limits: LimitsId) -> Packed {
        Packed { arrival_nanos: self.arrival_nanos, limits, waiters: self.waiters }
    }
}

/// A bucket as it lies in the table: 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    arrival_nanos: u64,
    pub(crate) limits: LimitsId,
    waiters: u32,
}

impl Packed {
    /// The bucket, with the limits that are named.
    #[inline]
    pub(crate) fn unpacked(self, limits: Limits) -> Bucket {
        Bucket { arrival_nanos: self.arrival_nanos, limits, waiters: self.waiters }
    }

    /// How many wait in line.
    #[inline]
    pub(crate) fn waiters(&self) -> u32 {
        self.waiters
    }

    /// Whether the bucket may be forgotten: nobody waits for it, and it has been full for at least `idle_nanos`, so
    /// that it owes nothing.
    pub(crate) fn is_idle_for(&self, now_nanos: u64, idle_nanos: u64) -> bool {
        self.waiters == 0 && self.arrival_nanos.saturating_add(idle_nanos) <= now_nanos
    }
}

/// The refusal of a take that can be had after `wait`.
pub(crate) fn not_enough(wait: Duration) -> TakeError {
    TakeError::NotEnoughTokens { wait: wait.max(WAIT_MIN) }
}

/// A limiter that lives for one call.
type Limiter = RateLimiter<NotKeyed, View, ViewClock, NoOpMiddleware<Nanos>>;

/// One bucket as a store that governor can measure and replace.
struct View {
    arrival_nanos: Cell<u64>,
}

impl StateStore for View {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (answer, arrival) = decide(Some(Nanos::new(self.arrival_nanos.get())))?;
        self.arrival_nanos.set(arrival.as_u64());
        Ok(answer)
    }
}

/// The clock of one call: at the origin while the limiter is made, at the time of the call afterwards.
struct ViewClock {
    now_nanos: Cell<u64>,
}

impl ViewClock {
    fn at_origin() -> ViewClock {
        ViewClock { now_nanos: Cell::new(0) }
    }

    fn move_to(&self, now_nanos: u64) {
        self.now_nanos.set(now_nanos);
    }
}

impl Clock for ViewClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.now_nanos.get())
    }
}
