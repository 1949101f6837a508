//! What a fuzzer sees of a shard's inside.

use bytes::Bytes;

use super::wire::{split_final, split_reply};
use super::{FinalAsk, RecordsAsk, ShardCommand, ShardData, ShardQuery, slots, split_answer};
use crate::value_type::ValuePerKey;

pub(crate) fn final_ask(bytes_max: u64) -> FinalAsk {
    FinalAsk { changes_after: 0, records: RecordsAsk { since_ms: 0, after: None, bytes_max } }
}

/// What is understood is what would be said.
pub(crate) fn command(bytes: &[u8]) {
    let Ok((command, rest)) = ShardCommand::split(bytes) else { return };
    let again = command.encode(rest);
    assert_eq!(ShardCommand::split(&again), Ok((command, rest)));
}

pub(crate) fn query(bytes: &[u8]) {
    let Ok((query, rest)) = ShardQuery::split(bytes) else { return };
    let again = query.encode(rest);
    assert_eq!(ShardQuery::split(&again), Ok((query, rest)));
}

pub(crate) fn reply(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok((reply, rest)) = split_reply(&bytes) {
        assert_eq!(split_reply(&reply.encode(&rest)), Ok((reply, rest)));
    }
    if let Ok((answer, rest)) = split_answer(&bytes) {
        assert_eq!(split_answer(&answer.encode(&rest)), Ok((answer, rest)));
    }
}

/// What goes from shard to shard: a head and slots.
pub(crate) fn rest<V: ValuePerKey>(value_type: &V, bytes: &[u8]) {
    if let Ok((head, rest)) = split_final(bytes) {
        let again = head.encode(rest);
        assert_eq!(split_final(&again), Ok((head, rest)));
        let _ = slots::read_slots(value_type, rest);
    }
    let Ok(read) = slots::read_slots(value_type, bytes) else { return };
    let (mut written, mut writer) = (Vec::new(), slots::SlotWriter::new(value_type));
    for (hash, slot) in &read {
        writer.write(*hash, slot.as_ref(), &mut written);
    }
    assert_eq!(slots::read_slots(value_type, &written).expect("they were just written").len(), read.len());
}

/// What a shard has counted on the way is what one counts that comes from its bytes.
pub(crate) fn agrees<V: ValuePerKey>(shard: &ShardData<V>, restored: &ShardData<V>) {
    assert_eq!(shard.counts, restored.counts);
    assert_eq!(shard.class_counts(), restored.class_counts());
    assert_eq!(shard.next_wake(), restored.next_wake());
    assert_eq!(shard.arriving.counts, restored.arriving.counts);
    assert_eq!(shard.arriving.index.counts(), restored.arriving.index.counts());
}
