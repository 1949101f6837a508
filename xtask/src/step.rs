//! Named steps, run one after another with their progress shown, and a table of them at the end.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Outcome;
use crate::invocation::Invocation;

/// A check inside this program: what it found, empty when all is well.
type Check = fn() -> io::Result<Vec<String>>;

/// One thing that must succeed.
pub(crate) struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// A program; its output is shown as it comes, or only if it fails.
    Program { invocation: Invocation, output: Output },
    /// A check inside this program, and the command that repeats it alone.
    Check { check: Check, reproduce: &'static str },
    /// Nothing, and why.
    Skipped { why: &'static str },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Always shown.
    Shown,
    /// A spinner on a terminal and the output if it fails; shown as it comes elsewhere.
    Folded,
}

impl Step {
    /// A program whose output matters only if it fails.
    pub(crate) fn command(name: &'static str, invocation: Invocation) -> Step {
        Step { name, work: Work::Program { invocation, output: Output::Folded } }
    }

    /// A program whose output is shown in any case.
    pub(crate) fn command_with_output(name: &'static str, invocation: Invocation) -> Step {
        Step { name, work: Work::Program { invocation, output: Output::Shown } }
    }

    /// A check inside this program, which `reproduce` repeats.
    pub(crate) fn check(name: &'static str, reproduce: &'static str, check: Check) -> Step {
        Step { name, work: Work::Check { check, reproduce } }
    }

    /// A step that cannot be done here.
    pub(crate) fn skipped(name: &'static str, why: &'static str) -> Step {
        Step { name, work: Work::Skipped { why } }
    }

    fn reproduce(&self) -> String {
        match &self.work {
            Work::Program { invocation, .. } => invocation.to_string(),
            Work::Check { reproduce, .. } => (*reproduce).to_owned(),
            Work::Skipped { why } => (*why).to_owned(),
        }
    }

    /// Whether all is well.
    fn run(&self) -> io::Result<bool> {
        match &self.work {
            Work::Skipped { .. } => Ok(true),
            Work::Check { check, .. } => {
                let found = check()?;
                found.iter().for_each(|line| println!("{line}"));
                Ok(found.is_empty())
            }
            Work::Program { invocation, output } => {
                let folded = *output == Output::Folded && io::stderr().is_terminal();
                let status = if folded {
                    folded_run(self.name, invocation)?
                } else {
                    invocation.command().status()?
                };
                Ok(status.success())
            }
        }
    }
}

/// Runs the steps in order until one fails, and prints a table of all.
///
/// # Errors
/// Names the step that failed and the command that repeats it.
pub(crate) fn run_all(steps: &[Step]) -> Outcome {
    let begun = Instant::now();
    let mut rows = Vec::new();
    let mut failed = None;
    for step in steps {
        println!("── {}: {}", step.name, step.reproduce());
        let step_begun = Instant::now();
        let well = step.run()?;
        let verdict = match (&step.work, well) {
            (Work::Skipped { .. }, _) => "skipped",
            (_, true) => "ok",
            (_, false) => "failed",
        };
        rows.push([step.name.to_owned(), verdict.to_owned(), seconds(step_begun.elapsed())]);
        if !well {
            failed = Some(step);
            break;
        }
    }
    rows.extend(
        steps.iter().skip(rows.len()).map(|step| [step.name.to_owned(), "not run".to_owned(), String::new()]),
    );
    rows.push(["total".to_owned(), String::new(), seconds(begun.elapsed())]);
    println!("{}", table(rows));
    match failed {
        None => Ok(()),
        Some(step) => Err(format!("{} failed; to repeat it: {}", step.name, step.reproduce()).into()),
    }
}

fn table(rows: Vec<[String; 3]>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["step", "result", "time"]).add_rows(rows);
    if let Some(times) = table.column_mut(2) {
        times.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Runs a program behind a spinner that shows its newest line; all its lines are printed if it fails.
fn folded_run(name: &'static str, invocation: &Invocation) -> io::Result<ExitStatus> {
    let spinner = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    spinner.set_prefix(name);
    spinner.enable_steady_tick(Duration::from_millis(100));
    let (lines, status) =
        captured_run(invocation.command(), |line| spinner.set_message(line.trim().to_owned()))?;
    spinner.finish_and_clear();
    if !status.success() {
        lines.iter().for_each(|line| eprintln!("{line}"));
    }
    Ok(status)
}

/// Runs a program and gathers what it writes, line by line, telling each line as it comes.
fn captured_run(mut command: Command, mut told: impl FnMut(&str)) -> io::Result<(Vec<String>, ExitStatus)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, receiver) = channel();
    let readers = [
        child.stdout.take().map(|pipe| send_lines(pipe, sender.clone())),
        child.stderr.take().map(|pipe| send_lines(pipe, sender)),
    ];
    let mut lines = Vec::new();
    for line in receiver {
        told(&line);
        lines.push(line);
    }
    for reader in readers.into_iter().flatten() {
        // A reader ends with its pipe; it has nothing that could panic.
        let _ = reader.join();
    }
    Ok((lines, child.wait()?))
}

/// Reads lines on a thread of its own until the pipe is closed.
fn send_lines(pipe: impl Read + Send + 'static, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    })
}
