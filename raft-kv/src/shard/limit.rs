//! The largest value that a command may leave, and the way back from a larger one.
//!
//! What is limited is the size that the value type reports of a value, because a live value has no other. A handler works
//! in place and is not told the limit, so that a value which has become too large must be put back: a new one is dropped;
//! one that was there is put back from a copy where its type makes one in a moment, or from its bytes where it was more
//! than half as large as the limit already. Only a value that grows from less than half of it past all of it in one step
//! is left to the engine, which undoes the command as it undoes one that panics.

use bytes::Bytes;
use raft_fleet::rafted_value::{CommandContext, Refused};

use super::ShardData;
use crate::value_type::{Done, ValuePerKey};

/// Why a command did not run on a key. Nothing has changed, on any member.
#[derive(Debug)]
pub(super) enum NotRun {
    /// The value type refused it.
    Refused(Refused),
    /// The value would be larger than it may be.
    TooLarge { size: u64, limit: u64 },
}

impl<V: ValuePerKey> ShardData<V> {
    /// Runs a command on a key that is served here.
    pub(super) fn run(
        &mut self,
        context: &CommandContext,
        hash: u64,
        key: &[u8],
        command: &Bytes,
        leads: bool,
    ) -> Result<Done, NotRun> {
        let limit = self.value_size_max;
        self.change(hash, key, |value_type, value, size| {
            let way_back = way_back(value_type, key, value.as_ref(), size, limit);
            let done = if leads {
                value_type.command_led(context, key, value, command)
            } else {
                value_type.command(context, key, value, command)
            };
            let done = done.map_err(NotRun::Refused)?;
            // One that is too large already, from a time without a limit, may still become smaller.
            if value.is_some() && done.size > limit.max(size) {
                let size = done.size;
                let Some(before) = way_back else {
                    panic!("a value grew to a size of {size} at once, over its keyspace's limit of {limit}");
                };
                *value = before;
                return Err(NotRun::TooLarge { size, limit });
            }
            Ok((done.size, done))
        })
    }
}

/// What to put back if a command makes the value too large; `None` where only the engine can.
fn way_back<V: ValuePerKey>(
    value_type: &V,
    key: &[u8],
    value: Option<&V::Value>,
    size: u64,
    limit: u64,
) -> Option<Option<V::Value>> {
    let Some(value) = value else { return Some(None) };
    if limit == u64::MAX {
        return None;
    }
    let copy = value_type.copy(key, value);
    let before = copy.or_else(|| {
        let large = size > limit / 2;
        large.then(|| {
            let mut bytes = Vec::new();
            value_type.encode(key, value, &mut bytes);
            value_type.decode(key, &bytes).ok()
        })?
    });
    before.map(Some)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_fleet::rafted_value::RawData;

    use super::super::{ShardCommand, ShardReply, split_reply};
    use super::*;
    use crate::key_range::KeyRange;
    use crate::value_type::Answer;

    /// Values are bytes that grow; they have a copy where the type says so.
    struct Growing {
        copies: bool,
    }

    impl ValuePerKey for Growing {
        type Value = Vec<u8>;

        fn command(
            &self,
            _: &CommandContext,
            _: &[u8],
            value: &mut Option<Vec<u8>>,
            command: &Bytes,
        ) -> Result<Done, Refused> {
            let value = value.get_or_insert_default();
            value.extend_from_slice(command);
            Ok(Done { reply: value.clone().into(), load: 1, size: value.len() as u64 })
        }

        fn copy(&self, _: &[u8], value: &Vec<u8>) -> Option<Vec<u8>> {
            self.copies.then(|| value.clone())
        }

        fn query(&self, _: &[u8], value: &Vec<u8>, _: &Bytes) -> Result<Answer, Refused> {
            Ok(Answer { answer: value.clone().into(), load: 1 })
        }

        fn encode(&self, _: &[u8], value: &Vec<u8>, out: &mut Vec<u8>) {
            out.extend_from_slice(value);
        }

        fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
            Ok(bytes.to_vec())
        }
    }

    const CONTEXT: CommandContext = CommandContext { now_ms: 1, index: 1, seed: 1 };

    fn shard(copies: bool) -> ShardData<Growing> {
        let mut shard = ShardData::new(Arc::new(Growing { copies }));
        shard.initialise(KeyRange::ALL, 10);
        shard
    }

    fn grow(shard: &mut ShardData<Growing>, key: &str, by: usize) -> ShardReply {
        let command = ShardCommand::Command { key: key.as_bytes() }.encode(&vec![b'x'; by]);
        split_reply(&shard.command(&CONTEXT, &command).unwrap()).unwrap().0
    }

    fn bytes(shard: &ShardData<Growing>) -> Vec<u8> {
        let mut bytes = Vec::new();
        shard.snapshot(&mut bytes);
        bytes
    }

    #[test]
    fn a_value_that_would_be_too_large_stays_as_it_was_and_its_size_and_the_limit_are_told() {
        for copies in [true, false] {
            let mut shard = shard(copies);
            assert_eq!(grow(&mut shard, "new", 11), ShardReply::TooLarge { size: 11, limit: 10 });
            assert_eq!(shard.status().keys, 0);
            assert_eq!(grow(&mut shard, "k", 6), ShardReply::Done);
            let before = bytes(&shard);
            assert_eq!(grow(&mut shard, "k", 5), ShardReply::TooLarge { size: 11, limit: 10 });
            assert_eq!((bytes(&shard), shard.status().size), (before, 6), "copies: {copies}");
            assert_eq!(grow(&mut shard, "k", 4), ShardReply::Done);
            // It comes back from a snapshot with its limit.
            let mut again = ShardData::new(Arc::new(Growing { copies }));
            again.restore(&bytes(&shard)).unwrap();
            assert_eq!(grow(&mut again, "k", 1), ShardReply::TooLarge { size: 11, limit: 10 });
        }
    }

    #[test]
    fn a_small_value_that_has_no_copy_and_grows_past_the_limit_at_once_is_undone_by_the_engine() {
        let mut with_copies = shard(true);
        grow(&mut with_copies, "k", 1);
        assert_eq!(grow(&mut with_copies, "k", 20), ShardReply::TooLarge { size: 21, limit: 10 });
        let mut without = shard(false);
        grow(&mut without, "k", 1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| grow(&mut without, "k", 20)));
        let message = *panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("size of 21") && message.contains("limit of 10"), "{message}");
    }
}
