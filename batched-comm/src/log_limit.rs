//! Keeps strangers from filling the log: whoever reaches the port can provoke refusals.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines in one window.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Lets some log lines through a second; the counters tell about the others.
pub(crate) struct LogLimit {
    window: Mutex<(Instant, u32)>,
}

impl LogLimit {
    pub(crate) fn new(now: Instant) -> LogLimit {
        LogLimit { window: Mutex::new((now, 0)) }
    }

    /// Whether a line may be logged now.
    pub(crate) fn permits(&self, now: Instant) -> bool {
        let mut window = self.window.lock();
        let (start, lines) = &mut *window;
        if now.duration_since(*start) >= WINDOW {
            (*start, *lines) = (now, 0);
        }
        *lines += 1;
        *lines <= LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_limit_and_the_next_one_starts_anew() {
        let start = Instant::now();
        let limit = LogLimit::new(start);
        assert_eq!((0..100).filter(|_| limit.permits(start)).count(), 20);
        assert!(limit.permits(start + WINDOW));
    }
}
