//! What the watcher sees: a progress bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::event::Event;

/// The time between two lines where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The demo's output.
pub(crate) struct Screen {
    /// On a terminal only.
    bar: Option<ProgressBar>,
    lined: Mutex<Option<Instant>>,
    /// Where it is told that nobody watches any more.
    events: Sender<Event>,
}

impl Screen {
    /// The screen that standard output is. When its reader goes away (`cargo xtask demo | head`) the demo is interrupted.
    pub(crate) fn new(events: Sender<Event>) -> Screen {
        let bar = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Screen { bar, lined: Mutex::new(None), events }
    }

    /// Prints a line for good, where no bar is.
    pub(crate) fn print(&self, line: &str) {
        self.print_to(&mut io::stdout().lock(), line);
    }

    fn print_to(&self, output: &mut impl Write, line: &str) {
        if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
            // Nobody listens any more once the demo is over.
            let _ = self.events.send(Event::Interrupted);
        }
    }

    /// Says something that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => self.print(line),
        }
    }

    /// Says what is being waited for.
    pub(crate) fn wait_for(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => self.print(what),
        }
    }

    /// Begins a stretch of known length.
    pub(crate) fn begin(&self, length: Duration) {
        if let Some(bar) = &self.bar {
            bar.set_length(millis(length));
            bar.set_position(0);
            bar.set_style(style("{bar:30} {percent:>3}% {wide_msg}"));
        }
    }

    /// Shows how far the stretch is and how it goes.
    pub(crate) fn progress(&self, elapsed: Duration, how: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(millis(elapsed));
            bar.set_message(how.to_owned());
            return;
        }
        let mut lined = self.lined.lock().expect("nobody panics while writing a line");
        if lined.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
            *lined = Some(Instant::now());
            self.print(&format!("{:>4.0} s  {how}", elapsed.as_secs_f64()));
        }
    }

    /// Ends the stretch.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds in the unit that suits a reader.
pub(crate) fn latency(us: f64) -> String {
    if us < 1_000.0 { format!("{us:.0} us") } else { format!("{:.1} ms", us / 1_000.0) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A pipe whose reader has gone.
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// It once was a panic.
    #[test]
    fn a_reader_that_goes_away_interrupts_the_demo() {
        let (events, receiver) = channel();
        let screen = Screen::new(events);
        screen.print_to(&mut Vec::new(), "read");
        assert!(receiver.try_recv().is_err());
        screen.print_to(&mut Broken, "not read");
        assert!(matches!(receiver.try_recv(), Ok(Event::Interrupted)));
    }

    #[test]
    fn numbers_are_printed_for_readers() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1_000, 12_345_678].map(grouped).each_ref().map(String::as_str)
        );
        assert_eq!(latency(830.4), "830 us");
        assert_eq!(latency(12_340.0), "12.3 ms");
    }
}
