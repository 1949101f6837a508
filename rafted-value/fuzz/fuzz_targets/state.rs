//! The state of a group, as snapshots have it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rafted_value::fuzzing::state(bytes));
