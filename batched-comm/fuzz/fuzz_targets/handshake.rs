//! A message of the handshake or of what follows on its stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| batched_comm::fuzzing::handshake(bytes));
