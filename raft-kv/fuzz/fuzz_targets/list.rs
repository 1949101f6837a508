//! What the list of keyspaces is told and asked.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| raft_kv::fuzzing::list(bytes));
