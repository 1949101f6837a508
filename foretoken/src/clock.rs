//! Time comes from outside, so that tests and simulations decide it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, QuantaClock, Reference as _};

/// The clock that buckets fill by.
///
/// It must never go backwards. If it does all the same, buckets fill later, and no token is handed out twice.
pub trait Clock: Send + Sync {
    /// Nanoseconds since an origin of the clock's choice, the same for its whole life.
    ///
    /// Time ends at 2^62 ns (146 years): later readings count as that.
    fn now_nanos(&self) -> u64;
}

/// The machine's monotonic clock; its origin is when it was made.
pub struct MonotonicClock {
    clock: QuantaClock,
    origin: <QuantaClock as governor::clock::Clock>::Instant,
}

impl MonotonicClock {
    /// A clock that reads zero now.
    pub fn new() -> MonotonicClock {
        let clock = QuantaClock::default();
        let origin = clock.now();
        MonotonicClock { clock, origin }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        MonotonicClock::new()
    }
}

impl Clock for MonotonicClock {
    fn now_nanos(&self) -> u64 {
        self.clock.now().duration_since(self.origin).as_u64()
    }
}

impl fmt::Debug for MonotonicClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonotonicClock").field("now_nanos", &self.now_nanos()).finish()
    }
}

/// A clock for tests: it stands still until it is moved. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at zero.
    pub fn new() -> ManualClock {
        ManualClock::default()
    }

    /// Moves the clock forward; it stops at `u64::MAX` nanoseconds.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let moved = |now: u64| Some(now.saturating_add(by));
        // The closure always answers, so the update cannot be refused.
        let _ = self.nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }
}

impl Clock for ManualClock {
    fn now_nanos(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }
}
