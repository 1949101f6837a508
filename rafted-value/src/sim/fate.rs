//! What happens to one message on its way.

use std::time::Duration;

use super::config::NetConfig;
use super::random::SimRng;

/// What the network does with one message.
pub(super) struct Fate {
    pub(super) delay: Duration,
    /// How much later it arrives if it leaves its place.
    pub(super) straggling: Duration,
    pub(super) lost: bool,
    pub(super) duplicated: bool,
    pub(super) reordered: bool,
}

impl Fate {
    /// Draws the same amount for each message, so that switching a fault on moves no other message's delay.
    pub(super) fn draw(config: &NetConfig, rng: &mut SimRng) -> Self {
        Self {
            delay: rng.duration(config.delay_min, config.delay_max),
            straggling: rng.duration(Duration::ZERO, config.straggling_max),
            lost: rng.chance(config.loss),
            duplicated: rng.chance(config.duplication),
            reordered: rng.chance(config.reordering),
        }
    }
}
