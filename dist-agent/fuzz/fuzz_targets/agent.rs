//! An agent in bytes: a snapshot's, or those of a shard that moves.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dist_agent::fuzzing::agent(bytes));
