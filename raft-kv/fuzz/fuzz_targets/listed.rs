//! What the list answers, and how it is written down.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| raft_kv::fuzzing::listed(bytes));
