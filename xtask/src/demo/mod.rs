//! `cargo xtask demo`: a cluster of real processes loses its busiest leader to `kill -9`, and no acknowledged command.
//!
//! The programs are the examples of `dist-agent`, the same that a user would copy. This module starts them, reads the
//! lines they print, kills and starts again, and compares at the end.

pub(crate) mod build;
pub(crate) mod cluster;
pub(crate) mod event;
pub(crate) mod folder;
mod options;
mod play;
mod ports;
pub(crate) mod program;
pub(crate) mod screen;
pub(crate) mod stage;
#[cfg(all(test, unix))]
mod tests;
mod verdict;

use std::error::Error;
use std::sync::mpsc::channel;

use comfy_table::Table;

use crate::Outcome;

pub(crate) use options::Options;

use event::{Event, Inbox, Interrupted};
use folder::Folder;
use play::Play;
use screen::Screen;
use stage::{Pace, Stage};

/// Builds the programs and plays the demo.
///
/// # Errors
/// Whatever kept the demo from its end, a lost or doubled command, or Ctrl-C.
pub(crate) fn run(options: &Options) -> Outcome {
    options.check()?;
    on_stage(options.keep, Pace::default(), |stage| {
        let verdict = Play::new(stage, options).run()?;
        Ok((verdict.table(), verdict.judge()))
    })
}

/// Builds the programs, and lets `play` have the stage; its table is shown at the end, and the logs where it failed.
///
/// # Errors
/// What kept the play from its end, how it was judged, or Ctrl-C.
pub(crate) fn on_stage(
    keep: bool,
    pace: Pace,
    play: impl FnOnce(Stage<'_>) -> Result<(Table, Outcome), Box<dyn Error>>,
) -> Outcome {
    let (events, receiver) = channel();
    let interrupts = events.clone();
    // Nobody listens any more once the play is over; the interrupt then has nothing left to stop.
    ctrlc::set_handler(move || drop(interrupts.send(Event::Interrupted)))?;
    let screen = Screen::new(events.clone());
    let inbox = Inbox::new(events, receiver);
    let folder = Folder::new(keep)?;
    let programs = build::build(&inbox, &screen)?;
    let played = play(Stage { programs, pace, folder: &folder, inbox: &inbox, screen: &screen });
    screen.clear();
    match played {
        Ok((table, judged)) => {
            screen.print(&table.to_string());
            judged.inspect_err(|_| folder.print_logs())
        }
        Err(error) => {
            if !error.is::<Interrupted>() {
                folder.print_logs();
            }
            Err(error)
        }
    }
}
