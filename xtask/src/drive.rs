//! `sim`, `chaos`, `bench`, `ca` and `node`: programs of `xtask/drive`, built in release mode when they are asked for.

use std::env;

use crate::Outcome;
use crate::invocation::Invocation;
use crate::workspace;

/// Runs a verb of the package `drive` with the caller's arguments, terminal and exit code.
pub(crate) fn run(verb: &str, arguments: Vec<String>) -> Outcome {
    ended(verb, Invocation::cargo("run --locked --quiet --release --package drive"), arguments)
}

/// The same in the caller's folder: paths among the arguments are meant from there.
pub(crate) fn run_here(verb: &str, arguments: Vec<String>) -> Outcome {
    let manifest = workspace::root().join("Cargo.toml").display().to_string();
    let program = Invocation::cargo("run --locked --quiet --release --package drive --manifest-path");
    ended(verb, program.with_arguments(vec![manifest]).in_folder(env::current_dir()?), arguments)
}

fn ended(verb: &str, program: Invocation, arguments: Vec<String>) -> Outcome {
    let program = program.with_arguments(vec!["--".to_owned(), verb.to_owned()]).with_arguments(arguments);
    let status = program.command().status()?;
    if status.success() { Ok(()) } else { Err(format!("{verb} ended with {status}: {program}").into()) }
}
