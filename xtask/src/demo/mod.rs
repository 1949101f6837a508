//! `cargo xtask demo`: a cluster of real processes loses its busiest leader to `kill -9`, and no acknowledged command.
//!
//! The programs are the examples of `dist-agent`, the same that a user would copy. This module starts them, reads the
//! lines they print, kills and starts again, and compares at the end.

mod build;
mod cluster;
mod event;
mod folder;
mod options;
mod play;
mod ports;
mod program;
mod screen;
#[cfg(all(test, unix))]
mod tests;
mod verdict;

use std::sync::mpsc::channel;

use crate::Outcome;

pub(crate) use options::Options;

use event::{Event, Inbox, Interrupted};
use folder::Folder;
use play::{Pace, Play};
use screen::Screen;

/// Builds the programs and plays the demo.
///
/// # Errors
/// Whatever kept the demo from its end, a lost or doubled command, or Ctrl-C.
pub(crate) fn run(options: &Options) -> Outcome {
    options.check()?;
    let (events, receiver) = channel();
    let interrupts = events.clone();
    // Nobody listens any more once the demo is over; the interrupt then has nothing left to stop.
    ctrlc::set_handler(move || drop(interrupts.send(Event::Interrupted)))?;
    let screen = Screen::new(events.clone());
    let inbox = Inbox::new(events, receiver);
    let folder = Folder::new(options.keep)?;
    let programs = build::build(&inbox, &screen)?;
    let outcome = Play::new(programs, options, Pace::default(), &folder, &inbox, &screen).run();
    match outcome {
        Ok(verdict) => {
            screen.clear();
            screen.print(&verdict.table().to_string());
            verdict.judge().inspect_err(|_| folder.print_logs())
        }
        Err(error) => {
            screen.clear();
            if !error.is::<Interrupted>() {
                folder.print_logs();
            }
            Err(error)
        }
    }
}
