//! The stream of a lane, cut where the first byte says: frames, packs, fan-outs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| batched_comm::fuzzing::lane(bytes));
