//! The clocks of one node: a monotonic one that may drift, and a wall clock that may jump.

use std::time::Duration;

use super::config::ClockConfig;
use super::random::{SimRng, nanos};
use crate::env::MonoTime;

/// The wall clock of a node without error shows this when the simulation starts: 2024-01-01.
const WALL_START_MS: i64 = 1_704_067_200_000;
/// The first reading of a monotonic clock lies below this: about 13 days.
const ORIGIN_MAX: u64 = 1 << 50;
const MILLION: i128 = 1_000_000;

/// A node's view of virtual time (nanoseconds since the simulation started).
#[derive(Debug)]
pub(super) struct NodeClock {
    /// At this virtual time ...
    base: u64,
    /// ... the clock showed this, and has since run with `drift_ppm`.
    reading: u64,
    drift_ppm: i64,
    wall_error_ms: i64,
}

impl NodeClock {
    /// A clock that shows virtual time.
    pub(super) fn exact() -> Self {
        Self { base: 0, reading: 0, drift_ppm: 0, wall_error_ms: 0 }
    }

    /// A clock of a node that starts at `now`.
    pub(super) fn draw(now: u64, config: &ClockConfig, rng: &mut SimRng) -> Self {
        let drift_max = u64::from(config.drift_ppm_max);
        let wall_max = nanos(config.wall_error_max) / 1_000_000;
        let reading = 1 + rng.below(ORIGIN_MAX);
        let drift_ppm = rng.below(2 * drift_max + 1) as i64 - drift_max as i64;
        let wall_error_ms = rng.below(2 * wall_max + 1) as i64 - wall_max as i64;
        let mut clock = Self { base: now, reading, drift_ppm: 0, wall_error_ms };
        clock.set_drift(now, drift_ppm);
        clock
    }

    /// What the clock shows at virtual time `now`.
    pub(super) fn read(&self, now: u64) -> MonoTime {
        let passed = i128::from(now) - i128::from(self.base);
        let shown = i128::from(self.reading) + passed * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        MonoTime::from_nanos(u64::try_from(shown.max(0)).unwrap_or(u64::MAX))
    }

    /// The first virtual time from `now` on at which the clock shows `reading` or more.
    pub(super) fn when(&self, now: u64, reading: MonoTime) -> u64 {
        let missing = i128::from(reading.nanos()) - i128::from(self.reading);
        let passed = missing * MILLION / (MILLION + i128::from(self.drift_ppm));
        let mut time = u64::try_from((i128::from(self.base) + passed).max(0)).unwrap_or(u64::MAX).max(now);
        // The division rounds down, by less than a nanosecond of either clock.
        while self.read(time) < reading && time < u64::MAX {
            time += 1;
        }
        time
    }

    /// From `now` on the clock runs faster by `drift_ppm` parts per million.
    pub(super) fn set_drift(&mut self, now: u64, drift_ppm: i64) {
        assert!(drift_ppm.unsigned_abs() < 1_000_000, "a clock that drifts by {drift_ppm} ppm stands still");
        self.reading = self.read(now).nanos();
        self.base = now;
        self.drift_ppm = drift_ppm;
    }

    /// What the wall clock shows at virtual time `now`, in milliseconds since 1970.
    pub(super) fn wall_ms(&self, now: u64) -> u64 {
        let passed = i64::try_from(now / 1_000_000).unwrap_or(i64::MAX);
        let shown = WALL_START_MS.saturating_add(self.wall_error_ms).saturating_add(passed);
        u64::try_from(shown).unwrap_or(0)
    }

    /// Moves the wall clock.
    pub(super) fn step_wall(&mut self, by: Duration, forward: bool) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let by = if forward { by } else { -by };
        self.wall_error_ms = self.wall_error_ms.saturating_add(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(drift_ppm: i64) -> NodeClock {
        NodeClock { base: 1_000, reading: 5_000, drift_ppm, wall_error_ms: 0 }
    }

    #[test]
    fn a_fast_clock_gains_and_a_slow_one_loses() {
        let second = 1_000_000_000;
        assert_eq!(clock(0).read(1_000 + second).nanos(), 5_000 + second);
        assert_eq!(clock(500).read(1_000 + second).nanos(), 5_000 + second + 500_000);
        assert_eq!(clock(-500).read(1_000 + second).nanos(), 5_000 + second - 500_000);
    }

    #[test]
    fn a_reading_is_reached_at_the_first_moment_that_shows_it() {
        for drift_ppm in [-999_999, -500, -1, 0, 1, 333, 1_000, 999_999] {
            let clock = clock(drift_ppm);
            for reading in [5_001, 5_002, 77_777, 1_000_000_007] {
                let reading = MonoTime::from_nanos(reading);
                let time = clock.when(1_000, reading);
                assert!(clock.read(time) >= reading, "{drift_ppm} {reading:?}");
                assert!(time == 1_000 || clock.read(time - 1) < reading, "{drift_ppm} {reading:?}");
            }
        }
    }

    #[test]
    fn a_change_of_drift_moves_no_reading() {
        let mut clock = clock(500);
        let before = clock.read(9_999_999);
        clock.set_drift(9_999_999, -500);
        assert_eq!(clock.read(9_999_999), before);
    }
}
