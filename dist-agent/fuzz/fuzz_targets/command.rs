//! What an agent is told, and what is told of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dist_agent::fuzzing::command(bytes));
