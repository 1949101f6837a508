//! What the programs of the demo share: the way into the cluster, and the lines that they print.

#![allow(clippy::print_stdout, reason = "a program's lines on stdout are its interface")]
#![allow(clippy::print_stderr, reason = "a program tells its user what went wrong")]

mod membership;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use futures_util::future::select;
use tracing_subscriber::EnvFilter;

pub(crate) use self::membership::Membership;

/// Prints one event as a line of JSON, at once, also into a pipe.
pub(crate) fn print(event: &serde_json::Value) {
    let mut stdout = std::io::stdout().lock();
    // Nobody may be reading any more; that is no reason to stop serving.
    let _ = writeln!(stdout, "{event}").and_then(|()| stdout.flush());
}

/// Sends the logs to stderr: warnings and errors, or what the variable `RUST_LOG` asks for.
pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

/// The program's end: quiet if all went well, else one sentence.
pub(crate) fn end(name: &str, result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Completes on Ctrl-C or SIGTERM, and on the end of standard input where that is wanted.
pub(crate) async fn told_to_end(stdin_too: bool) {
    if stdin_too {
        select(Box::pin(signalled()), Box::pin(stdin_closed())).await;
    } else {
        signalled().await;
    }
}

/// Completes at the end of standard input.
pub(crate) async fn stdin_closed() {
    let (closed, stdin) = tokio::sync::oneshot::channel();
    watch_stdin(closed);
    // The other end says it by going away.
    let _ = stdin.await;
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = Box::pin(tokio::signal::ctrl_c());
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(select(interrupt, Box::pin(terminate.recv())).await),
        Err(_) => drop(interrupt.await),
    }
}

#[cfg(not(unix))]
async fn signalled() {
    drop(tokio::signal::ctrl_c().await);
}

#[allow(clippy::disallowed_methods, reason = "a blocking read of standard input needs a thread of its own")]
fn watch_stdin(closed: tokio::sync::oneshot::Sender<()>) {
    std::thread::spawn(move || {
        // What comes is of no interest, only that it ends.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(closed);
    });
}
