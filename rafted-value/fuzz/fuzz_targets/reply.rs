//! What a client is answered.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rafted_value::fuzzing::reply(bytes));
