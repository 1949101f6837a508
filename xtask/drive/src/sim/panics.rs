//! Panics inside a seed: kept with the seed, not printed, because many of them are part of the play.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// No more panics than this are remembered of one seed.
const KEPT_MAX: usize = 20;

/// What handlers say that panic on purpose; not remembered.
pub(crate) const ON_PURPOSE: &str = "a command that panics on purpose";

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on panics on purpose are not printed: with a backtrace (`RUST_BACKTRACE=1`) the first of a process takes a
/// second and more to print, in which the loop of the engine that it happened in stands still.
pub(crate) fn be_silent_on_purpose() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains(ON_PURPOSE) {
            before(info);
        }
    }));
}

/// From now on panics within [`catch`] are remembered, others are printed as always.
pub(crate) fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let inside = SEEN.with_borrow_mut(|seen| {
            let Some(seen) = seen else { return false };
            let text = info.to_string();
            if seen.len() < KEPT_MAX && !text.contains(ON_PURPOSE) {
                seen.push(text);
            }
            true
        });
        if !inside {
            before(info);
        }
    }));
}

/// Runs `run`; a panic becomes an error that quotes every panic seen.
pub(crate) fn catch(run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    SEEN.set(Some(Vec::new()));
    let result = catch_unwind(AssertUnwindSafe(run));
    let seen = SEEN.take().unwrap_or_default();
    let quoted = || if seen.is_empty() { String::new() } else { format!("\n{}", seen.join("\n")) };
    match result {
        Ok(Ok(())) if seen.is_empty() => Ok(()),
        Ok(Ok(())) => Err(format!("a panic was caught by the engine{}", quoted())),
        Ok(Err(failure)) => Err(format!("{failure}{}", quoted())),
        Err(_) => Err(format!("panicked{}", quoted())),
    }
}
