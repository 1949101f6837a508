//! What has happened in a simulation, in numbers and as one hash.

use twox_hash::XxHash3_64;

/// Counts of what has happened in a simulation so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SimStats {
    /// Times a task was polled.
    pub polls: u64,
    /// Timers that fired.
    pub timers: u64,
    /// Messages that reached a handler or a caller.
    pub delivered: u64,
    /// Messages that vanished: by fault, with a connection, or because nobody was there to take them.
    pub lost: u64,
    /// Messages that were sent a second time by fault.
    pub duplicated: u64,
    /// Messages that left their place in the order by fault.
    pub reordered: u64,
    /// Connections that were made.
    pub connected: u64,
    /// Connections that were given up or refused.
    pub disconnected: u64,
}

/// A running hash over everything that happens: equal hashes, equal runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TraceHash(u64);

impl TraceHash {
    /// Adds an event: what it is, the numbers that describe it, and its bytes.
    pub(super) fn add<const N: usize>(&mut self, kind: u8, numbers: [u64; N], bytes: &[u8]) {
        self.0 = XxHash3_64::oneshot_with_seed(self.0, &[kind]);
        for number in numbers {
            self.0 = XxHash3_64::oneshot_with_seed(self.0, &number.to_le_bytes());
        }
        self.0 = XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}
