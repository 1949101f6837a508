//! `cargo xtask ci`: everything that must hold before a change goes in. It writes nothing into the tree.
//!
//! All steps that compile use the same profile, features and package selection, so that each dependency is compiled
//! once for checking and once for running.

use std::process::Stdio;

use crate::Outcome;
use crate::invocation::Invocation;
use crate::step::{Step, run_all};
use crate::tidy;

/// The seeds that once failed, then fixed seeds of every scenario, as many as there is time for: no new one is started after
/// three minutes.
const SIMULATION: &str =
    "run --quiet --locked --release --package drive -- sim --once-failed --seeds 0..400 --minutes 2.8";

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
        advisories(),
        Step::command("clippy", clippy),
        Step::command_with_output("test", test),
        Step::command("doc", doc),
        Step::command_with_output("simulation", Invocation::cargo(SIMULATION)),
    ]
}

/// Licences, bans and sources, where the tool for it is installed.
fn deny() -> Step {
    if answers("deny --version") {
        Step::command("deny", Invocation::cargo("deny --locked --all-features check bans licenses sources"))
    } else {
        Step::skipped("deny", "cargo-deny is not installed")
    }
}

/// Advisories, where their database can be fetched: everything else here works without a network.
fn advisories() -> Step {
    if answers("deny fetch db") {
        Step::command("advisories", Invocation::cargo("deny --locked --all-features check advisories"))
    } else {
        Step::skipped("advisories", "cargo-deny is not installed, or its database cannot be fetched")
    }
}

fn answers(arguments: &str) -> bool {
    let status = Invocation::cargo(arguments).command().stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
