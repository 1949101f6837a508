//! What callers are told, and what they keep.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dist_agent::fuzzing::told(bytes));
