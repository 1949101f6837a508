//! A datagram at the UDP port, before QUIC sees it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| batched_comm::fuzzing::datagram(bytes));
