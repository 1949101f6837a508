//! `cargo xtask fix`: writes what `ci` would only complain about.

use crate::Outcome;
use crate::invocation::Invocation;
use crate::step::{Step, run_all};
use crate::tidy;

/// Mends lints, then the format, then tells what is left to be done by hand.
pub(crate) fn run() -> Outcome {
    let clippy = "clippy --fix --allow-dirty --allow-staged --workspace --all-targets --all-features";
    run_all(&[
        Step::command("clippy", Invocation::cargo(clippy)),
        Step::command("format", Invocation::cargo("fmt --all")),
        Step::check("tidy", "cargo xtask tidy", tidy::check_tree),
    ])
}
