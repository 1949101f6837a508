//! The body of a pack, by each algorithm.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| batched_comm::fuzzing::pack(bytes));
