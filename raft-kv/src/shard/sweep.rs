//! Commands for all keys that begin alike: a bounded number at a time, resumed after the last key.

use std::convert::Infallible;

use bytes::Bytes;
use raft_fleet::rafted_value::{CommandContext, encode};
use serde::{Deserialize, Serialize};

use super::{ShardData, ShardReply};
use crate::key;
use crate::key_range::KeyRange;
use crate::value_type::ValuePerKey;

/// The most keys that one command looks at, whatever is asked for.
const KEYS_MAX: usize = 10_000;

/// Where to go on; in bytes behind the reply.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Keys {
    /// The last key that was looked at, where there are more behind it.
    pub(crate) more_after: Option<Vec<u8>>,
}

/// A key, behind its hash.
type HashedKey = (u64, Box<[u8]>);

impl<V: ValuePerKey> ShardData<V> {
    /// Lets the value type change or remove the values whose keys begin with `prefix` and lie behind `after`, in the
    /// order of their hashes.
    pub(super) fn sweep(
        &mut self,
        context: &CommandContext,
        prefix: &[u8],
        after: &[u8],
        keys_max: u32,
        payload: &Bytes,
    ) -> Bytes {
        let (keys, more_after) = self.keys_after(prefix, after, KEYS_MAX.min(keys_max.max(1) as usize));
        for (hash, key) in keys {
            let Ok(()) = self.change(hash, &key, |value_type, value, _| {
                Ok::<_, Infallible>((value_type.sweep(context, &key, value, payload), ()))
            });
        }
        ShardReply::Swept.encode(&encode(&Keys { more_after }))
    }

    fn keys_after(&self, prefix: &[u8], after: &[u8], keys_max: usize) -> (Vec<HashedKey>, Option<Vec<u8>>) {
        let Some(served) = self.serves() else { return (Vec::new(), None) };
        let behind = if after.is_empty() { Some(0) } else { key::hash(after).checked_add(1) };
        let left = behind.and_then(|first| KeyRange::new(first.max(served.first()), served.last()));
        let Some(left) = left else { return (Vec::new(), None) };
        let (mut keys, mut looked_at, mut last) = (Vec::new(), 0, None::<&[u8]>);
        for (hash, slot) in self.entries.range(left.hashes()) {
            if looked_at >= keys_max {
                return (keys, last.map(<[u8]>::to_vec));
            }
            // Keys of one hash are looked at together: a place between them would have no name.
            for entry in slot.entries() {
                looked_at += 1;
                last = Some(&*entry.key);
                if entry.key.starts_with(prefix) {
                    keys.push((hash, entry.key.clone()));
                }
            }
        }
        (keys, None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_fleet::rafted_value::{RawData, Refused};

    use super::super::{ShardCommand, ShardQuery, Tally, split_reply};
    use super::*;
    use crate::value_type::{Answer, Done};

    /// Numbers, classed by the first byte of their key, or all of a long one, and by whether they are odd; a sweep removes those
    /// that it names.
    struct Numbers;

    impl ValuePerKey for Numbers {
        type Value = u8;

        fn command(
            &self,
            _: &CommandContext,
            _: &[u8],
            value: &mut Option<u8>,
            command: &Bytes,
        ) -> Result<Done, Refused> {
            *value = command.first().copied();
            Ok(Done { reply: Bytes::new(), load: 1, size: 1 })
        }

        fn class<'k>(&self, key: &'k [u8], value: &u8) -> Option<(&'k [u8], u64)> {
            let prefix = if key.len() > 9 { key } else { &key[..1] };
            Some((prefix, u64::from(value % 2)))
        }

        fn sweep(&self, _: &CommandContext, _: &[u8], value: &mut Option<u8>, payload: &Bytes) -> u64 {
            *value = value.filter(|value| !payload.contains(value));
            1
        }

        fn query(&self, _: &[u8], _: &u8, _: &Bytes) -> Result<Answer, Refused> {
            Ok(Answer { answer: Bytes::new(), load: 1 })
        }

        fn encode(&self, _: &[u8], value: &u8, out: &mut Vec<u8>) {
            out.push(*value);
        }

        fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<u8, String> {
            Ok(bytes[0])
        }
    }

    const CONTEXT: CommandContext = CommandContext { now_ms: 7, index: 1, seed: 1 };

    fn shard() -> ShardData<Numbers> {
        let mut shard = ShardData::new(Arc::new(Numbers));
        shard.initialise(KeyRange::ALL, u64::MAX);
        for (key, value) in [("a1", 1), ("a2", 2), ("a3", 3), ("a4", 2), ("b1", 2)] {
            let command = ShardCommand::Command { key: key.as_bytes() }.encode(&[value]);
            shard.command(&CONTEXT, &command).unwrap();
        }
        shard
    }

    fn tally(shard: &mut ShardData<Numbers>) -> Vec<(Vec<u8>, u64, u64)> {
        let reply = shard.command(&CONTEXT, &ShardCommand::Tally.encode(&[])).unwrap();
        let (ShardReply::Tally, reply) = split_reply(&reply).unwrap() else { panic!("no tally") };
        let Tally { range, now_ms, counts } = postcard::from_bytes(&reply).unwrap();
        assert_eq!((range, now_ms), (KeyRange::ALL, 7));
        counts.into_iter().map(|class| (class.prefix, class.tag, class.count)).collect()
    }

    fn keys(reply: &Bytes) -> Keys {
        let (ShardReply::Swept, rest) = split_reply(reply).unwrap() else { panic!("not swept") };
        postcard::from_bytes(&rest).unwrap()
    }

    #[test]
    fn a_sweep_visits_each_key_that_begins_alike_once_and_no_other() {
        let mut shard = shard();
        assert_eq!(tally(&mut shard), [(b"a".into(), 0, 2), (b"a".into(), 1, 2), (b"b".into(), 0, 1)]);
        let (mut after, mut rounds) = (Vec::new(), 0);
        loop {
            let sweep = ShardCommand::Sweep { prefix: b"a", after: &after, keys_max: 3 }.encode(&[2]);
            rounds += 1;
            match keys(&shard.command(&CONTEXT, &sweep).unwrap()).more_after {
                Some(last) => after = last,
                None => break,
            }
        }
        assert_eq!(rounds, 2);
        assert_eq!(tally(&mut shard), [(b"a".into(), 1, 2), (b"b".into(), 0, 1)]);
        assert_eq!((shard.status().keys, shard.status().size), (3, 3));
    }

    /// A tally that named every class was once no reply and no answer, as too large, and so for ever.
    #[test]
    fn a_tally_of_very_many_classes_is_one_that_can_be_sent() {
        let mut shard = shard();
        for n in 0..17_000 {
            let key = format!("{n:0>255}");
            let command = ShardCommand::Command { key: key.as_bytes() }.encode(&[1]);
            shard.command(&CONTEXT, &command).unwrap();
        }
        assert_eq!(tally(&mut shard), [(vec![], 0, 3), (vec![], 1, 17_002)]);
        let answer = shard.query(&ShardQuery::Tally.encode(&[])).unwrap();
        assert!(answer.len() < 100, "{} bytes", answer.len());
    }
}
