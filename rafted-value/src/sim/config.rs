//! What the simulated network and clocks do when nobody asks for a fault.

use std::time::Duration;

/// How the network behaves.
///
/// The default is a healthy local network that keeps what a QUIC connection keeps: messages on one lane between the
/// same two nodes arrive in order and at most once while the connection lives, and none in the middle is missing.
/// `loss`, `duplication` and `reordering` break that, for code that must not lean on it.
///
/// A connection lives until its peer has been silent (killed, paused or cut off) for a time between `silence_min` and
/// `silence_max`. Until then casts to it are taken and calls wait; if it is heard again, what waited arrives late and in
/// order, else it is lost and calls end with `Lost`. The next message dials. A peer that is not cut off learns of a kill
/// after one `delay`, from the killed node's system, with the probability `death_notice`.
#[derive(Clone, PartialEq, Debug)]
pub struct NetConfig {
    /// The shortest time a message is under way: 100 us.
    pub delay_min: Duration,
    /// The longest time a message is under way, unless it waits for one before it: 1 ms.
    pub delay_max: Duration,
    /// Bytes a second that one lane carries in one direction: 125,000,000.
    pub bandwidth_bytes_per_second: u64,
    /// The probability that a message vanishes although the connection lives: 0. A call whose request or reply
    /// vanishes times out.
    pub loss: f64,
    /// The probability that a message arrives twice: 0. A call's request never does: what was refused would run later.
    pub duplication: f64,
    /// The probability that a message leaves its place in the order: 0.
    pub reordering: f64,
    /// How much later than others a reordered or duplicated message arrives at most: 50 ms.
    pub straggling_max: Duration,
    /// How long a peer is silent before its connection is given up, at least: 500 ms.
    pub silence_min: Duration,
    /// How long a peer is silent before its connection is given up, at most: 1 s.
    pub silence_max: Duration,
    /// The probability that a peer is told of a kill at once: 1. Otherwise it notices the silence.
    pub death_notice: f64,
    /// How long a dial that nobody answers goes on: 1 s. It tries again every 100 ms.
    pub dial_timeout: Duration,
    /// How long after a dial that failed messages are refused without another: 100 ms.
    pub redial_wait: Duration,
    /// How many messages wait on one lane in one direction at most: 65,536.
    pub queue_messages_max: usize,
    /// How many bytes a message has at most, except on the bulk lane: 4,194,304.
    pub message_bytes_max: usize,
    /// The same on the bulk lane: 67,108,864.
    pub bulk_message_bytes_max: usize,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_micros(100),
            delay_max: Duration::from_millis(1),
            bandwidth_bytes_per_second: 125_000_000,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            straggling_max: Duration::from_millis(50),
            silence_min: Duration::from_millis(500),
            silence_max: Duration::from_secs(1),
            death_notice: 1.0,
            dial_timeout: Duration::from_secs(1),
            redial_wait: Duration::from_millis(100),
            queue_messages_max: 65_536,
            message_bytes_max: 4 * 1024 * 1024,
            bulk_message_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl NetConfig {
    /// A setting that means nothing is a mistake in the test.
    pub(super) fn check(&self) {
        for (name, probability) in [
            ("loss", self.loss),
            ("duplication", self.duplication),
            ("reordering", self.reordering),
            ("death_notice", self.death_notice),
        ] {
            assert!((0.0..=1.0).contains(&probability), "{name} is {probability}, not a probability");
        }
        assert!(self.delay_min <= self.delay_max, "delay_min is above delay_max");
        assert!(self.silence_min <= self.silence_max, "silence_min is above silence_max");
        assert!(self.bandwidth_bytes_per_second > 0, "bandwidth_bytes_per_second is zero");
        assert!(self.queue_messages_max > 0, "queue_messages_max is zero");
    }
}

/// How the clocks of nodes that start from now on differ.
///
/// Monotonic clocks always start at a random reading, so that readings of two nodes have nothing in common.
#[derive(Clone, PartialEq, Debug)]
pub struct ClockConfig {
    /// How much faster or slower than true time a monotonic clock runs at most, in parts per million: 0.
    pub drift_ppm_max: u32,
    /// How far a wall clock is off at most, in either direction: 1 s.
    pub wall_error_max: Duration,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { drift_ppm_max: 0, wall_error_max: Duration::from_secs(1) }
    }
}
