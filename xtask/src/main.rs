//! Every chore of the project behind one verb: `cargo xtask ci`, `fix`, `tidy`, `demo`, `upgrade`, `sim`, `chaos`,
//! `bench`, `ca`, `node`.
//!
//! It depends on none of the crates and runs their programs through cargo, so that it is built in seconds and works
//! while they do not compile.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(clippy::disallowed_methods, reason = "runs on one real machine, outside of any simulation")]

mod ci;
mod demo;
mod drive;
mod fix;
mod invocation;
mod step;
mod tidy;
mod upgrade;
mod workspace;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a chore ends with; the error is printed and becomes exit code 1.
type Outcome = Result<(), Box<dyn Error>>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Every chore of the project", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Verify everything: format, lints, tests, docs, licences, house rules. Writes nothing into the tree
    Ci,
    /// Mend what can be mended by a program: format and lints. The writing twin of ci
    Fix,
    /// Check the rules of the house that no compiler knows
    Tidy,
    /// Watch a cluster of real processes lose its busiest leader, and not one acknowledged command
    Demo(demo::Options),
    /// Watch a cluster of real processes go from one build of its program to the next, node after node, while clients work
    Upgrade(upgrade::Options),
    /// Run simulation seeds; all arguments go to the simulation
    Sim(Passed),
    /// Break real node processes while clients work, and check what they were told; all arguments go to the run:
    /// --minutes, --nodes, --clients, --seed; --help says more
    Chaos(Passed),
    /// Measure, in real node processes; all arguments go to the benchmark: a part of the scenarios' names, such as
    /// rafted-value or outage, --seconds of each load, --kills, --directory of the disk; --help says more
    Bench(Passed),
    /// Make the certificate authority of a cluster: ca new --dir DIR; --help says more
    Ca(Passed),
    /// Make the certificate of a node: node new NAME --ca DIR; --help says more
    Node(Passed),
}

/// Arguments for the program that is run.
#[derive(clap::Args)]
struct Passed {
    /// Arguments of the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Ci => ci::run(),
        Verb::Fix => fix::run(),
        Verb::Tidy => tidy::run(),
        Verb::Demo(options) => demo::run(&options),
        Verb::Upgrade(options) => upgrade::run(&options),
        Verb::Sim(passed) => drive::run("sim", passed.arguments),
        Verb::Chaos(passed) => drive::run("chaos", passed.arguments),
        Verb::Bench(passed) => drive::run("bench", passed.arguments),
        Verb::Ca(passed) => drive::run_here("ca", passed.arguments),
        Verb::Node(passed) => drive::run_here("node", passed.arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
