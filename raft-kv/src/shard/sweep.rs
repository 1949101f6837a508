//! Commands for all keys that begin alike, and lists of them: a bounded number at a time, resumed after the last key.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use raft_fleet::rafted_value::{CommandContext, encode};
use serde::{Deserialize, Serialize};

use super::{ShardAnswer, ShardData, ShardReply};
use crate::value_type::ValuePerKey;

/// The most keys that one command visits or one answer lists, whatever is asked for.
const KEYS_MAX: usize = 10_000;
/// An answer lists no further key once it has this many bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Some keys, and where to go on; in bytes behind the reply or the answer.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Keys {
    /// The keys that are listed; none for a sweep.
    pub(crate) keys: Vec<Vec<u8>>,
    /// The last key that was looked at, where there are more behind it.
    pub(crate) more_after: Option<Vec<u8>>,
}

impl<V: ValuePerKey> ShardData<V> {
    /// Lets the value type change or remove the values whose keys begin with `prefix` and come after `after`.
    pub(super) fn sweep(
        &mut self,
        context: &CommandContext,
        prefix: &[u8],
        after: &[u8],
        keys_max: u32,
        payload: &Bytes,
    ) -> Bytes {
        self.leads.store(false, Ordering::Relaxed);
        let (keys, more) = self.keys_after(prefix, after, KEYS_MAX.min(keys_max as usize), usize::MAX);
        let more_after = if more { keys.last().cloned() } else { None };
        for key in &keys {
            self.visit(key, |value_type, value| value_type.sweep(context, key, value, payload));
        }
        ShardReply::Swept.encode(&encode(&Keys { keys: Vec::new(), more_after }))
    }

    /// The keys that begin with `prefix` and come after `after`.
    pub(super) fn list(&self, prefix: &[u8], after: &[u8], keys_max: u32) -> Bytes {
        let keys_max = KEYS_MAX.min(keys_max as usize);
        let (keys, more) = self.keys_after(prefix, after, keys_max, ANSWER_BYTES_MAX);
        let more_after = if more { keys.last().cloned() } else { None };
        ShardAnswer::Keys.encode(&encode(&Keys { keys, more_after }))
    }

    fn keys_after(
        &self,
        prefix: &[u8],
        after: &[u8],
        keys_max: usize,
        bytes_max: usize,
    ) -> (Vec<Vec<u8>>, bool) {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let mut keys = Vec::new();
        let mut bytes = 0;
        for key in self.entries.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, _)| key) {
            if !key.starts_with(prefix) {
                break;
            }
            if keys.len() >= keys_max || bytes >= bytes_max {
                return (keys, true);
            }
            bytes += key.len();
            keys.push(key.to_vec());
        }
        (keys, false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_fleet::rafted_value::{RawData, Refused};

    use super::super::{ShardCommand, ShardQuery, Tally, split_answer, split_reply};
    use super::*;
    use crate::key_range::KeyRange;
    use crate::value_type::{Answer, Done};

    /// Numbers, classed by the first byte of their key and by whether they are odd; a sweep removes those that it names.
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
            Some((&key[..1], u64::from(value % 2)))
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
        shard.initialise(KeyRange::ALL);
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
        let rest = match split_reply(reply) {
            Ok((ShardReply::Swept, rest)) => rest,
            _ => split_answer(reply).unwrap().1,
        };
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

    #[test]
    fn a_list_goes_on_behind_the_last_key_that_it_gave() {
        let shard = shard();
        let list = |after: &[u8]| {
            let query = ShardQuery::List { prefix: b"a", after, keys_max: 3 }.encode(&[]);
            keys(&shard.query(&query).unwrap())
        };
        let first = list(b"");
        assert_eq!(first.keys, [b"a1", b"a2", b"a3"]);
        assert_eq!(first.more_after.as_deref(), Some(&b"a3"[..]));
        assert_eq!(list(b"a3"), Keys { keys: vec![b"a4".to_vec()], more_after: None });
        assert_eq!(list(b"a4"), Keys::default());
    }
}
