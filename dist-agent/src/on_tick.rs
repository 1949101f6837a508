//! What an agent does at the ticks to come, and when that is.

use serde::{Deserialize, Serialize};

/// What an agent does at the ticks to come; set by [`AgentContext::on_tick`](crate::AgentContext::on_tick).
///
/// Ticks are the moments, in stamped time, that are multiples of the tick interval
/// ([`DistAgentConfig::tick_interval`](crate::DistAgentConfig)). With `ticks: 0` something happens at the next tick, with
/// `ticks: 1` at the one after it, and so on; so at least `ticks` whole intervals pass before it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum OnTick {
    /// Nothing.
    #[default]
    Nothing,
    /// [`handle_timeout`](crate::Agent::handle_timeout) runs once. Commands in between do not put it off.
    Timeout {
        /// How many ticks pass before the one at which it runs.
        ticks: u32,
    },
    /// The agent ends, unless it gets a command before that: each command that keeps this setting starts the count anew.
    Deactivate {
        /// How many ticks pass before the one at which it ends.
        ticks: u32,
    },
}

/// A tick that an agent waits for. Replicated and stored: it is a function of stamped time and of what is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Timer {
    pub(crate) on_tick: OnTick,
    /// The length of a tick, in milliseconds, as the command said that set it.
    interval_ms: u32,
    pub(crate) due_ms: u64,
}

impl Timer {
    /// The timer for a setting that was made at `now_ms`.
    pub(crate) fn set(on_tick: OnTick, now_ms: u64, interval_ms: u32) -> Option<Self> {
        let ticks = match on_tick {
            OnTick::Nothing => return None,
            OnTick::Timeout { ticks } | OnTick::Deactivate { ticks } => ticks,
        };
        let interval_ms = interval_ms.max(1);
        let interval = u64::from(interval_ms);
        let tick = (now_ms / interval).saturating_add(1).saturating_add(ticks.into());
        Some(Self { on_tick, interval_ms, due_ms: tick.saturating_mul(interval) })
    }

    /// The length of a tick.
    pub(crate) fn interval_ms(&self) -> u32 {
        self.interval_ms
    }

    /// The timer after a command at `now_ms` that asked for a setting, or for none and keeps what there is.
    pub(crate) fn after_command(
        timer: Option<Self>,
        asked: Option<OnTick>,
        now_ms: u64,
        interval_ms: u32,
    ) -> Option<Self> {
        match (asked, timer) {
            (Some(on_tick), _) => Self::set(on_tick, now_ms, interval_ms),
            (None, Some(timer)) if matches!(timer.on_tick, OnTick::Deactivate { .. }) => {
                Self::set(timer.on_tick, now_ms, interval_ms)
            }
            (None, kept) => kept,
        }
    }

    /// The same setting again, counted from `now_ms`.
    pub(crate) fn again(self, now_ms: u64) -> Option<Self> {
        Self::set(self.on_tick, now_ms, self.interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due(on_tick: OnTick, now_ms: u64) -> u64 {
        Timer::set(on_tick, now_ms, 100).unwrap().due_ms
    }

    #[test]
    fn zero_ticks_is_the_next_tick_and_one_the_next_but_one() {
        assert_eq!(due(OnTick::Timeout { ticks: 0 }, 1_000), 1_100);
        assert_eq!(due(OnTick::Timeout { ticks: 0 }, 1_099), 1_100);
        assert_eq!(due(OnTick::Timeout { ticks: 1 }, 1_099), 1_200);
        assert_eq!(due(OnTick::Deactivate { ticks: 2 }, 1_001), 1_300);
        assert_eq!(Timer::set(OnTick::Nothing, 1_000, 100), None);
    }

    /// In the original a command that kept the setting did not start the countdown anew (fault 21).
    #[test]
    fn a_command_that_keeps_a_deactivation_starts_its_countdown_anew() {
        let before = Timer::set(OnTick::Deactivate { ticks: 1 }, 1_000, 100);
        assert_eq!(before.unwrap().due_ms, 1_200);
        assert_eq!(Timer::after_command(before, None, 1_150, 100).unwrap().due_ms, 1_300);
    }

    #[test]
    fn a_command_that_keeps_a_timeout_does_not_put_it_off() {
        let before = Timer::set(OnTick::Timeout { ticks: 1 }, 1_000, 100);
        assert_eq!(Timer::after_command(before, None, 1_150, 100), before);
        assert_eq!(Timer::after_command(before, Some(OnTick::Nothing), 1_150, 100), None);
    }

    proptest! {
        /// In the original an invalid answer was noticed at the next tick, and the shard died (fault 20). No answer is
        /// invalid here.
        #[test]
        fn every_setting_at_every_time_is_due_after_at_least_its_ticks(
            now_ms: u64, ticks: u32, interval_ms: u32,
        ) {
            let timer = Timer::set(OnTick::Timeout { ticks }, now_ms, interval_ms).unwrap();
            let least = u128::from(now_ms) + u128::from(ticks) * u128::from(interval_ms.max(1));
            let most = u128::from(now_ms) + (u128::from(ticks) + 1) * u128::from(interval_ms.max(1));
            let due = u128::from(timer.due_ms);
            prop_assert!((due >= least && due <= most) || timer.due_ms == u64::MAX);
        }
    }
}
