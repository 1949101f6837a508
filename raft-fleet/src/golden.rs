//! Tests that pin bytes: what is stored or sent must never change its shape unnoticed.
//!
//! The expected bytes are in `testdata/*.golden`, one line a value. A new value is appended by running the tests with
//! `RAFT_FLEET_REWRITE=1`; a line that changes is a broken wire or disk format.

use std::fmt::Write;
use std::path::PathBuf;

/// Compares labelled values with `testdata/{file}.golden`.
pub(crate) fn check(file: &str, values: &[(&str, &[u8])]) {
    let mut text = String::new();
    for (label, bytes) in values {
        write!(text, "{label} ").expect("a string takes everything");
        bytes.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string takes everything"));
        text.push('\n');
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{file}.golden"));
    if std::env::var_os("RAFT_FLEET_REWRITE").is_some() {
        std::fs::write(&path, &text).expect("testdata is writable");
    }
    let expected = std::fs::read_to_string(&path).expect("the golden file exists");
    for (line, expected) in text.lines().zip(expected.lines()) {
        assert_eq!(line, expected, "in {}", path.display());
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "in {}", path.display());
}
