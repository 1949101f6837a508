//! The clock of a tokio runtime, behind the feature `tokio`.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Clock, Sleep};

/// Tokio's clock and timer; its origin is when it was made.
///
/// Waiting callers are woken by the runtime's own timer (to the next millisecond), and `tokio::time::pause` stops
/// this clock too. Sleeps must be polled within a runtime whose time driver is enabled: elsewhere tokio panics.
#[derive(Debug, Clone)]
pub struct TokioClock {
    origin: Instant,
}

#[allow(clippy::disallowed_methods, reason = "the real clock is what a simulation replaces as a whole")]
impl TokioClock {
    /// A clock that reads zero now.
    pub fn new() -> TokioClock {
        TokioClock { origin: Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        TokioClock::new()
    }
}

#[allow(clippy::disallowed_methods, reason = "the real clock is what a simulation replaces as a whole")]
impl Clock for TokioClock {
    fn now_nanos(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, at_nanos: u64) -> Sleep {
        match self.origin.checked_add(Duration::from_nanos(at_nanos)) {
            Some(at) => Box::pin(tokio::time::sleep_until(at)),
            // Beyond what the machine can count: never.
            None => Box::pin(std::future::pending()),
        }
    }
}
