//! The random source of the simulation: one seed, split into streams that do not disturb each other.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use twox_hash::XxHash3_64;

use crate::id::NodeId;

/// What a stream of random numbers is for. A draw for one purpose changes nothing for another.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    /// Node ids and clocks.
    Nodes,
    /// What tests ask for with [`Sim::rng`](super::Sim::rng): the n-th source.
    Test(u64),
    /// What tests ask for with [`Sim::named_rng`](super::Sim::named_rng).
    Named(u64),
    /// What one node's program draws.
    Program(NodeId),
    /// What one node's dials draw.
    Dials(NodeId),
    /// The fates of messages from one node to another.
    Link(NodeId, NodeId),
    /// How long it takes until a silent link is given up.
    Silence,
    /// Which deaths are told at once, and when.
    Deaths,
}

impl Stream {
    fn number(self) -> u64 {
        let (kind, first, second) = match self {
            Stream::Nodes => (0, 0, 0),
            Stream::Test(n) => (1, n, 0),
            Stream::Program(node) => (2, node.0, 0),
            Stream::Dials(node) => (3, node.0, 0),
            Stream::Link(from, to) => (4, from.0, to.0),
            Stream::Silence => (5, 0, 0),
            Stream::Deaths => (6, 0, 0),
            Stream::Named(name) => (7, name, 0),
        };
        let mut name = [0; 16];
        name[..8].copy_from_slice(&u64::to_le_bytes(first));
        name[8..].copy_from_slice(&u64::to_le_bytes(second));
        XxHash3_64::oneshot_with_seed(kind, &name)
    }
}

/// A source of random numbers that the simulation's seed decides (ChaCha12, one stream a source).
#[derive(Clone, Debug)]
pub struct SimRng(ChaCha12Rng);

impl SimRng {
    pub(super) fn new(seed: u64, stream: Stream) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(stream.number());
        Self(rng)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`.
    ///
    /// # Panics
    ///
    /// Panics when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        // Multiply and shift (Lemire, 2019) without its rejection step: the bias is under `bound / 2^64`.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this probability, from 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        let draw = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        draw < probability
    }

    /// A duration from `min` up to and including `max`; `min` when `max` is not above it.
    pub fn duration(&mut self, min: Duration, max: Duration) -> Duration {
        min + Duration::from_nanos(self.nanos(max.saturating_sub(min)))
    }

    /// One of `items`, or `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let draw = self.below(items.len().max(1) as u64);
        items.get(draw as usize)
    }

    fn nanos(&mut self, max: Duration) -> u64 {
        self.below(nanos(max).saturating_add(1))
    }
}

/// The virtual time `duration` after `time`; at most the end of time, 584 years after the start.
pub(super) fn after(time: u64, duration: Duration) -> u64 {
    time.saturating_add(nanos(duration))
}

/// `duration` in nanoseconds; at most 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |stream| SimRng::new(1, stream).next_u64();
        assert_eq!(draw(Stream::Test(3)), draw(Stream::Test(3)));
        assert_ne!(draw(Stream::Test(3)), draw(Stream::Test(4)));
        assert_ne!(draw(Stream::Link(NodeId(1), NodeId(2))), draw(Stream::Link(NodeId(2), NodeId(1))));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut rng = SimRng::new(1, Stream::Test(0));
        let (min, max) = (Duration::from_millis(1), Duration::from_millis(2));
        for _ in 0..1_000 {
            assert!(rng.below(3) < 3);
            assert!((min..=max).contains(&rng.duration(min, max)));
        }
        assert_eq!(rng.duration(max, min), max);
        assert!(!rng.chance(0.0) && rng.chance(1.0));
        assert_eq!(rng.pick::<u8>(&[]), None);
    }
}
