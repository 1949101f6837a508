//! Where the tree is, and the names that its rules are about.

use std::env;
use std::path::PathBuf;

/// The six crates, from the top of the house down.
pub(crate) const CRATES: [&str; 6] =
    ["dist-agent", "raft-kv", "raft-fleet", "rafted-value", "batched-comm", "foretoken"];

/// The root of the tree that this program was started for.
///
/// Cargo tells the folder of the package it runs; a binary that is started by hand works on the current folder.
pub(crate) fn root() -> PathBuf {
    match env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) {
        Some(package) => package.parent().map(PathBuf::from).unwrap_or(package),
        None => PathBuf::from("."),
    }
}
