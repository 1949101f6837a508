//! The machine's clock, and a thread that wakes who sleeps by it: waiting needs no async runtime.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use governor::clock::{Clock as _, QuantaClock, Reference as _};
use parking_lot::{Condvar, Mutex};

use crate::alarm::{AlarmId, Alarms};
use crate::clock::{Clock, Sleep};

/// How long the thread stays when nobody sleeps.
const LINGER: Duration = Duration::from_secs(1);

/// The machine's monotonic clock; its origin is when it was made.
///
/// Sleeps work under every executor. One thread wakes the sleepers: it is started by the first sleep and ends when
/// nobody has slept for a second. Takes that do not wait start none.
pub struct MonotonicClock {
    shared: Arc<Shared>,
}

struct Shared {
    clock: QuantaClock,
    origin: <QuantaClock as governor::clock::Clock>::Instant,
    state: Mutex<State>,
    /// The earliest alarm has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    alarms: Alarms,
    /// Whether the thread is there. It clears this itself, under the lock, when it leaves.
    running: bool,
}

impl MonotonicClock {
    /// A clock that reads zero now.
    pub fn new() -> MonotonicClock {
        let clock = QuantaClock::default();
        let origin = clock.now();
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        MonotonicClock { shared: Arc::new(Shared { clock, origin, state, changed }) }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        MonotonicClock::new()
    }
}

impl Clock for MonotonicClock {
    #[inline]
    fn now_nanos(&self) -> u64 {
        self.shared.now_nanos()
    }

    fn sleep_until(&self, at_nanos: u64) -> Sleep {
        Box::pin(MonotonicSleep { shared: Arc::clone(&self.shared), at_nanos, alarm: None })
    }
}

impl fmt::Debug for MonotonicClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonotonicClock").field("now_nanos", &self.now_nanos()).finish()
    }
}

impl Shared {
    #[inline]
    fn now_nanos(&self) -> u64 {
        self.clock.now().duration_since(self.origin).as_u64()
    }

    /// Sets an alarm and sees to it that somebody rings it. Answers whether somebody does.
    fn set(self: &Arc<Shared>, at_nanos: u64, alarm: Option<AlarmId>, waker: Waker) -> (AlarmId, bool) {
        let (alarm, replaced, rings) = {
            let mut state = self.state.lock();
            let earliest = state.alarms.next_at_nanos();
            let (alarm, replaced) = state.alarms.set(at_nanos, alarm, waker);
            if !state.running {
                state.running = self.start();
            } else if earliest.is_none_or(|earliest| at_nanos < earliest) {
                self.changed.notify_one();
            }
            (alarm, replaced, state.running)
        };
        drop(replaced);
        (alarm, rings)
    }

    #[allow(clippy::disallowed_methods, reason = "the real clock is what a simulation replaces as a whole")]
    fn start(self: &Arc<Shared>) -> bool {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("foretoken-clock".to_owned());
        thread.spawn(move || shared.ring_until_idle()).is_ok()
    }

    /// The thread: sleeps until the earliest alarm, and leaves when there has been none for a while.
    fn ring_until_idle(&self) {
        let mut state = self.state.lock();
        loop {
            let due = state.alarms.take_due(self.now_nanos());
            if !due.is_empty() {
                drop(state);
                // A waker is code of somebody else; its panic must not silence all others.
                due.into_iter().for_each(|waker| drop(catch_unwind(AssertUnwindSafe(|| waker.wake()))));
                state = self.state.lock();
                continue;
            }
            match state.alarms.next_at_nanos() {
                Some(at_nanos) => {
                    let wait = Duration::from_nanos(at_nanos.saturating_sub(self.now_nanos()));
                    // The clock's rate and the condition variable's may differ: look at least once an hour.
                    let _ = self.changed.wait_for(&mut state, wait.min(Duration::from_secs(3600)));
                }
                None => {
                    let waited = self.changed.wait_for(&mut state, LINGER);
                    if waited.timed_out() && state.alarms.next_at_nanos().is_none() {
                        state.running = false;
                        return;
                    }
                }
            }
        }
    }
}

struct MonotonicSleep {
    shared: Arc<Shared>,
    at_nanos: u64,
    alarm: Option<AlarmId>,
}

impl Future for MonotonicSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.shared.now_nanos() >= this.at_nanos {
            return Poll::Ready(());
        }
        let (alarm, rings) = this.shared.set(this.at_nanos, this.alarm, cx.waker().clone());
        this.alarm = Some(alarm);
        if !rings {
            // The system gives no thread: be polled until the time has come, rather than never.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for MonotonicSleep {
    fn drop(&mut self) {
        let waker = self.alarm.and_then(|alarm| self.shared.state.lock().alarms.cancel(alarm));
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Wake;

    use super::*;

    struct Send(mpsc::Sender<()>);

    impl Wake for Send {
        fn wake(self: Arc<Self>) {
            self.0.send(()).ok();
        }
    }

    /// Panics when woken.
    struct Broken;

    impl Wake for Broken {
        fn wake(self: Arc<Self>) {
            panic!("a waker of somebody else");
        }
    }

    fn sleep(clock: &MonotonicClock, nanos: u64) {
        let (sender, woken) = mpsc::channel();
        let waker = Waker::from(Arc::new(Send(sender)));
        let end_nanos = clock.now_nanos() + nanos;
        let mut sleep = clock.sleep_until(end_nanos);
        while sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            woken.recv().expect("the waker is held by the sleep and by this function");
        }
        assert!(clock.now_nanos() >= end_nanos);
    }

    #[test]
    fn a_sleep_wakes_its_task_and_never_ends_early() {
        let clock = MonotonicClock::new();
        for nanos in [0, 1, 1_000, 3_000_000] {
            sleep(&clock, nanos);
        }
    }

    #[test]
    fn an_earlier_sleep_is_not_held_up_by_a_later_one() {
        let clock = MonotonicClock::new();
        let mut long = clock.sleep_until(u64::MAX);
        assert!(long.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        sleep(&clock, 1_000_000);
        drop(long);
        assert_eq!(clock.shared.state.lock().alarms.next_at_nanos(), None, "a dropped sleep leaves nothing");
    }

    #[test]
    fn a_waker_that_panics_silences_nobody_else() {
        let clock = MonotonicClock::new();
        let broken = Waker::from(Arc::new(Broken));
        let mut sleep_of_broken = clock.sleep_until(clock.now_nanos() + 1_000_000);
        assert!(sleep_of_broken.as_mut().poll(&mut Context::from_waker(&broken)).is_pending());
        sleep(&clock, 2_000_000);
        sleep(&clock, 1_000_000);
    }
}
