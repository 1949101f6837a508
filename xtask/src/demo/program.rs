//! A child process that does not outlive its guard.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;

use super::event::{Event, Inbox, ProgramId};

/// A running program whose lines arrive as events. Dropping it kills it.
///
/// Its input is a pipe that nothing is written to. If this process dies in a way that runs no destructors, the pipe
/// closes, and a program that watches it ends by itself.
pub(crate) struct Program {
    id: ProgramId,
    child: Child,
    input: Option<ChildStdin>,
}

impl Program {
    /// Starts a program; its error output goes to `log`, or to the terminal.
    pub(crate) fn start(
        name: &str,
        id: ProgramId,
        mut command: Command,
        log: Option<&Path>,
        inbox: &Inbox,
    ) -> io::Result<Program> {
        let errors = match log {
            Some(log) => Stdio::from(OpenOptions::new().create(true).append(true).open(log)?),
            None => Stdio::inherit(),
        };
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn();
        let mut child = spawned.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let events = inbox.sender();
        thread::spawn(move || {
            let lines =
                output.into_iter().flat_map(|output| BufReader::new(output).lines().map_while(Result::ok));
            for line in lines {
                if events.send(Event::Line { from: id, line }).is_err() {
                    return;
                }
            }
            // Nobody listens once the demo is over.
            let _ = events.send(Event::Closed { from: id });
        });
        Ok(Program { id, child, input })
    }

    /// The number of this start.
    pub(crate) fn id(&self) -> ProgramId {
        self.id
    }

    /// Asks the program to end by closing its input.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for a program that has closed its output.
    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        self.close_input();
        self.child.wait()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only for a program that has ended and was waited for, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
