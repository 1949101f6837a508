//! What an agent is asked.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dist_agent::fuzzing::query(bytes));
