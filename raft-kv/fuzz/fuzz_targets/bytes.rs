//! What a store of bytes is told, and what nodes ask each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| raft_kv::fuzzing::bytes(bytes));
