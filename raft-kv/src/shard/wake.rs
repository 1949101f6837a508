//! Waking the values that are due.

use std::convert::Infallible;

use raft_fleet::rafted_value::CommandContext;

use super::{ShardData, ShardReply};
use crate::key;
use crate::value_type::{ValuePerKey, Woken};

/// The most values that one command wakes, whatever it asks for: nothing else happens in the shard meanwhile.
const KEYS_MAX: usize = 10_000;

impl<V: ValuePerKey> ShardData<V> {
    /// Wakes what is due at the command's stamped time. A wake that comes again, or late, finds less.
    pub(super) fn wake(&mut self, context: &CommandContext, keys_max: u32, leads: bool) -> ShardReply {
        let due = self.index.due(context.now_ms, KEYS_MAX.min(keys_max as usize), self.stays());
        let keys = due.len() as u32;
        for key in due {
            let hash = key::hash(&key);
            let Ok(load) = self.change(hash, &key, |value_type, value, _| {
                let Woken { load, size } = value_type.wake(context, &key, value, leads);
                Ok::<_, Infallible>((size, load))
            });
            self.load.count(hash, load);
        }
        ShardReply::Woken { keys, more: self.next_wake().is_some_and(|next| next <= context.now_ms) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;
    use raft_fleet::rafted_value::{RawData, RawLeaderHook, Refused};

    use super::super::{ShardCommand, ShardHook, split_reply};
    use super::*;
    use crate::key_range::KeyRange;
    use crate::value_type::{Answer, Done, Woken};

    /// Each value is the time at which it wants to be woken; one that is even is removed by it, another sleeps on for 10.
    #[derive(Default)]
    struct Sleepers {
        led: AtomicU64,
    }

    impl ValuePerKey for Sleepers {
        type Value = u64;

        fn command(
            &self,
            _: &CommandContext,
            _: &[u8],
            value: &mut Option<u64>,
            command: &Bytes,
        ) -> Result<Done, Refused> {
            *value = command.first().map(|at| u64::from(*at));
            Ok(Done { reply: Bytes::new(), load: 1, size: 8 })
        }

        fn command_led(
            &self,
            context: &CommandContext,
            key: &[u8],
            value: &mut Option<u64>,
            command: &Bytes,
        ) -> Result<Done, Refused> {
            self.led.fetch_add(1, Ordering::Relaxed);
            self.command(context, key, value, command)
        }

        fn has_hooks(&self) -> bool {
            true
        }

        fn wake_at(&self, value: &u64) -> Option<u64> {
            Some(*value)
        }

        fn wake(&self, _: &CommandContext, _: &[u8], value: &mut Option<u64>, leads: bool) -> Woken {
            self.led.fetch_add(u64::from(leads) * 100, Ordering::Relaxed);
            *value = value.filter(|at| at % 2 == 1).map(|at| at + 10);
            Woken { load: 2, size: 8 }
        }

        fn query(&self, _: &[u8], _: &u64, _: &Bytes) -> Result<Answer, Refused> {
            Ok(Answer { answer: Bytes::new(), load: 1 })
        }

        fn encode(&self, _: &[u8], value: &u64, out: &mut Vec<u8>) {
            out.push(*value as u8);
        }

        fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<u64, String> {
            Ok(bytes[0].into())
        }
    }

    fn shard() -> ShardData<Sleepers> {
        let mut shard = ShardData::new(Arc::new(Sleepers::default()));
        shard.initialise(KeyRange::ALL, u64::MAX);
        shard
    }

    fn at(now_ms: u64) -> CommandContext {
        CommandContext { now_ms, index: 1, seed: 1 }
    }

    fn set(shard: &mut ShardData<Sleepers>, key: &[u8], wake_at: &[u8]) {
        shard.command(&at(0), &ShardCommand::Command { key }.encode(wake_at)).unwrap();
    }

    fn wake(shard: &mut ShardData<Sleepers>, now_ms: u64, keys_max: u32) -> ShardReply {
        let reply = shard.command(&at(now_ms), &ShardCommand::Wake { keys_max }.encode(&[])).unwrap();
        split_reply(&reply).unwrap().0
    }

    #[test]
    fn only_what_is_due_in_stamped_time_is_woken_and_a_bounded_number_at_a_time() {
        let mut shard = shard();
        for (key, wake_at) in [(b"a", 5), (b"b", 6), (b"c", 7), (b"d", 9)] {
            set(&mut shard, key, &[wake_at]);
        }
        assert_eq!(wake(&mut shard, 4, 10), ShardReply::Woken { keys: 0, more: false });
        assert_eq!(wake(&mut shard, 7, 2), ShardReply::Woken { keys: 2, more: true });
        assert_eq!(wake(&mut shard, 7, 2), ShardReply::Woken { keys: 1, more: false });
        // What comes late finds nothing.
        assert_eq!(wake(&mut shard, 7, 2), ShardReply::Woken { keys: 0, more: false });
        assert_eq!((shard.status().keys, shard.status().size), (3, 24));
        assert_eq!(shard.next_wake(), Some(9));
    }

    /// Splits, merges and snapshots carry values only.
    #[test]
    fn the_timers_of_a_restored_shard_are_those_of_its_values() {
        let mut before = shard();
        set(&mut before, b"a", &[9]);
        set(&mut before, b"b", &[5]);
        set(&mut before, b"b", &[11]);
        set(&mut before, b"c", &[3]);
        set(&mut before, b"c", &[]);
        let mut bytes = Vec::new();
        before.snapshot(&mut bytes);
        let mut after = shard();
        after.restore(&bytes).unwrap();
        for shard in [&mut before, &mut after] {
            assert_eq!(wake(shard, 10, 10), ShardReply::Woken { keys: 1, more: false });
            assert_eq!(wake(shard, 20, 10), ShardReply::Woken { keys: 2, more: false });
            assert_eq!(shard.next_wake(), Some(21));
        }
    }

    #[test]
    fn only_a_command_that_runs_on_the_leader_has_effects() {
        let mut shard = shard();
        let hook = ShardHook::<Sleepers>::new();
        let led = |shard: &ShardData<Sleepers>| shard.value_type.led.load(Ordering::Relaxed);
        set(&mut shard, b"a", &[5]);
        assert_eq!(led(&shard), 0);
        hook.before(&shard, &Bytes::new());
        set(&mut shard, b"a", &[5]);
        set(&mut shard, b"a", &[5]);
        assert_eq!(led(&shard), 1);
        hook.before(&shard, &Bytes::new());
        wake(&mut shard, 5, 10);
        wake(&mut shard, 15, 10);
        assert_eq!(led(&shard), 101);
    }
}
