//! A page of records that moves with keys from group to group.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rafted_value::fuzzing::page(bytes));
