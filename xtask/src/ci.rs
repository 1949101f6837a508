//! `cargo xtask ci`: everything that must hold before a change goes in. It writes nothing into the tree.
//!
//! All steps that compile use the same profile, features and package selection, so that each dependency is compiled
//! once for checking and once for running.

use std::process::Stdio;

use crate::Outcome;
use crate::invocation::Invocation;
use crate::step::{Step, run_all};
use crate::tidy;

/// Runs the steps in order and stops at the first that fails.
pub(crate) fn run() -> Outcome {
    run_all(&steps())
}

/// Cheap steps first; tests before docs, because they fail more often.
fn steps() -> Vec<Step> {
    let selection = "--locked --workspace --all-features";
    let clippy = Invocation::cargo(&format!("clippy {selection} --all-targets -- -D warnings"));
    let test = Invocation::cargo(&format!("test {selection}"));
    let doc =
        Invocation::cargo(&format!("doc {selection} --no-deps")).with_variable("RUSTDOCFLAGS", "-D warnings");
    vec![
        Step::command("format", Invocation::cargo("fmt --all --check")),
        Step::check("tidy", "cargo xtask tidy", tidy::check_tree),
        deny(),
        Step::command("clippy", clippy),
        Step::command_with_output("test", test),
        Step::command("doc", doc),
    ]
}

/// Licences, bans, sources and advisories, where the tool for it is installed.
fn deny() -> Step {
    let version =
        Invocation::cargo("deny --version").command().stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        Step::command("deny", Invocation::cargo("deny --locked --all-features check"))
    } else {
        Step::skipped("deny", "cargo-deny is not installed")
    }
}
