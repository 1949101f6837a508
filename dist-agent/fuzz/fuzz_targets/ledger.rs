//! What the ledger of quotas is told and asked.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dist_agent::fuzzing::ledger(bytes));
