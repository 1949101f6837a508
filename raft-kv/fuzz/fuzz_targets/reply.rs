//! What a shard replies, and what goes from shard to shard.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| raft_kv::fuzzing::reply(bytes));
