//! What a client on another node asks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rafted_value::fuzzing::request(bytes));
