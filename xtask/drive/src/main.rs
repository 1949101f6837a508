//! The programs that xtask runs in release mode: `bench` and `chaos` with their node processes, `sim`, `ca` and `node`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]
#![allow(clippy::disallowed_methods, reason = "measures real time on a real machine")]

mod bench;
mod certificates;
mod chaos;
mod sim;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// Nodes and simulated worlds make and drop small things all the time, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The programs behind `cargo xtask bench`, `sim`, `chaos`, `ca` and `node`.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measures three node processes on loopback.
    Bench(bench::Arguments),
    /// Plays seeds of simulated worlds.
    Sim(sim::Arguments),
    /// Makes the certificate authority of a cluster.
    #[command(subcommand)]
    Ca(certificates::Ca),
    /// Makes the certificates of nodes.
    #[command(subcommand)]
    Node(certificates::Node),
    /// Breaks real node processes, and checks what clients were told.
    Chaos(chaos::Arguments),
    /// One node process of a chaos run.
    #[command(hide = true)]
    ChaosNode(chaos::node::Arguments),
    /// One node process of the bench; spoken to in JSON lines.
    #[command(hide = true)]
    BenchNode(bench::node::Arguments),
    /// One that hosts agents.
    #[command(hide = true)]
    BenchAgents(bench::node::Arguments),
    /// One that hosts keys of the bare store.
    #[command(hide = true)]
    BenchKeys(bench::node::Arguments),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Sim(arguments) => sim::run(&arguments),
        Verb::Ca(ca) => ca.run(),
        Verb::Node(node) => node.run(),
        Verb::Chaos(arguments) => chaos::run(&arguments),
        Verb::ChaosNode(arguments) => chaos::node::run(&arguments),
        Verb::BenchNode(arguments) => bench::node::run(&arguments),
        Verb::BenchAgents(arguments) => bench::agents::node::run_agents(&arguments),
        Verb::BenchKeys(arguments) => bench::agents::node::run_keys(&arguments),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
