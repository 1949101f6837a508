//! What a shard is told.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| raft_kv::fuzzing::command(bytes));
