//! What the watcher sees: a progress bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The time between two lines where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The demo's output.
pub(crate) struct Screen {
    /// On a terminal only.
    bar: Option<ProgressBar>,
    lined: Mutex<Option<Instant>>,
}

impl Screen {
    /// The screen that standard output is.
    pub(crate) fn new() -> Screen {
        let bar = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Screen { bar, lined: Mutex::new(None) }
    }

    /// Says something that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => println!("{line}"),
        }
    }

    /// Says what is being waited for.
    pub(crate) fn wait_for(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => println!("{what}"),
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
            println!("{:>4.0} s  {how}", elapsed.as_secs_f64());
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
    use super::*;

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
