//! What a loop says to a loop of another node.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rafted_value::fuzzing::beat(bytes));
