//! The programs that xtask runs in release mode.
fn main() {}
