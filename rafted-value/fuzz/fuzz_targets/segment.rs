//! A segment of a log after a batch that is whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rafted_value::fuzzing::segment(bytes));
