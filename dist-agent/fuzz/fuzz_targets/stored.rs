//! The ledger of quotas in bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dist_agent::fuzzing::stored(bytes));
