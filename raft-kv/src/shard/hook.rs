//! How a shard learns that it runs on the member that leads.
//!
//! A value type may act on the world where its shard is led. It is told where the command runs, not afterwards: so it
//! sees each key's value as each command found it and left it, and needs no copy of either.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use raft_fleet::rafted_value::{GroupId, RawData, RawLeaderHook};

use super::{KeyAnswer, ShardAnswer, ShardData, ShardQuery, split_answer};
use crate::key;
use crate::value_type::ValuePerKey;

/// The leader's hook of all shards of a value type.
pub(crate) struct ShardHook<V>(PhantomData<fn() -> V>);

impl<V: ValuePerKey> ShardHook<V> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

fn shard<V: ValuePerKey>(value: &dyn RawData) -> Option<&ShardData<V>> {
    (value as &dyn Any).downcast_ref()
}

impl<V: ValuePerKey> RawLeaderHook for ShardHook<V> {
    fn before(&self, value: &dyn RawData, _: &Bytes) -> Option<Box<dyn Any>> {
        if let Some(shard) = shard::<V>(value) {
            shard.leads.store(true, Ordering::Relaxed);
        }
        None
    }

    fn query_answered(&self, _: GroupId, value: &dyn RawData, query: &Bytes, answer: &Bytes) {
        let (Some(shard), Ok((asked, rest))) = (shard::<V>(value), ShardQuery::split(query)) else { return };
        let tell = |key: &[u8], answer: &Bytes| {
            let entry = shard.entries.get(key::hash(key), key);
            if let Some(value) = entry.and_then(|entry| entry.value.as_ref()) {
                shard.value_type.answered(key, value, &query.slice_ref(rest), answer);
            }
        };
        match asked {
            ShardQuery::Query { key } => {
                if let Ok((ShardAnswer::Answer, answer)) = split_answer(answer) {
                    tell(key, &answer);
                }
            }
            ShardQuery::Many { keys } => {
                let Ok((ShardAnswer::Many(answers), _)) = split_answer(answer) else { return };
                for (key, answer) in keys.into_iter().zip(answers) {
                    if let KeyAnswer::Answer(answer) = answer {
                        tell(key, &answer);
                    }
                }
            }
            _ => {}
        }
    }
}
