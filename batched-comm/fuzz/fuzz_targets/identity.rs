//! Certificates and keys as PEM, which come from files of an operator.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| batched_comm::fuzzing::identity(bytes));
