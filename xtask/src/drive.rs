//! `sim`, `chaos` and `bench`: programs of `xtask/drive`, built in release mode when they are asked for.

use crate::Outcome;
use crate::invocation::Invocation;

/// Runs a verb of the package `drive` with the caller's arguments, terminal and exit code.
pub(crate) fn run(verb: &str, arguments: Vec<String>) -> Outcome {
    let program = Invocation::cargo("run --locked --quiet --release --package drive --");
    let program = program.with_arguments(vec![verb.to_owned()]).with_arguments(arguments);
    let status = program.command().status()?;
    if status.success() { Ok(()) } else { Err(format!("{verb} ended with {status}: {program}").into()) }
}
