//! What a shard is asked.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| raft_kv::fuzzing::query(bytes));
