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
use crate::rate::Rate;
use crate::take::Take;

/// The shortest wait that is ever told to a caller.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The state of one bucket: 24 bytes.
///
/// Invariant: `capacity * period` is at most 2^62 ns, and `arrival_nanos` at most that much after the newest time at
/// which the bucket was touched.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// When the bucket will be full: the theoretical arrival time of the algorithm, in nanoseconds of the clock.
    arrival_nanos: u64,
    rate: Rate,
    capacity: u32,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(now_nanos: u64, rate: Rate, capacity: u32) -> Bucket {
        Bucket { arrival_nanos: now_nanos, rate, capacity }
    }

    /// Takes `take.n` tokens or none. `fill_nanos` is what [`Take::fill_nanos`] has answered for `take`.
    pub(crate) fn take(&mut self, now_nanos: u64, take: Take, fill_nanos: u64) -> Result<(), TakeError> {
        if self.rate != take.rate || self.capacity != take.capacity {
            self.settle(now_nanos, take.rate, take.capacity, fill_nanos);
        }
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
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(Nanos::new(now_nanos)).max(WAIT_MIN);
                Err(TakeError::NotEnoughTokens { wait })
            }
            Err(_) => Err(TakeError::MoreThanCapacity { n: take.n, capacity: take.capacity }),
        }
    }

    /// Carries the tokens of this moment over to another rate and capacity.
    ///
    /// Fractions of a token are rounded down to whole nanoseconds of the new rate, so that changing rates to and fro
    /// never makes a token. This is kept even if the take that follows is refused: the wait that it is told counts on
    /// the new rate being in force.
    fn settle(&mut self, now_nanos: u64, rate: Rate, capacity: u32, fill_nanos: u64) {
        let old_period = self.rate.period_nanos();
        let old_fill = old_period * u64::from(self.capacity);
        let held = old_fill.saturating_sub(self.arrival_nanos.saturating_sub(now_nanos));
        let held = u128::from(held) * u128::from(rate.period_nanos()) / u128::from(old_period);
        let missing = u64::try_from(held).map_or(0, |held| fill_nanos.saturating_sub(held));
        *self = Bucket { arrival_nanos: now_nanos + missing, rate, capacity };
    }

    /// Whether the bucket has been full for at least `idle_nanos`, and so is no different from one not yet made.
    pub(crate) fn is_full_for(&self, now_nanos: u64, idle_nanos: u64) -> bool {
        self.arrival_nanos.saturating_add(idle_nanos) <= now_nanos
    }
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
