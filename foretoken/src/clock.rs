//! Time comes from outside, so that tests and simulations decide it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;

use crate::alarm::{AlarmId, Alarms};

/// A sleep that a [`Clock`] has made. It owns what it needs, and dropping it ends it.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The clock that buckets fill by and that waiting callers sleep by: the one door of this crate to time.
///
/// It must never go backwards. If it does all the same, buckets fill later, and no token is handed out twice.
///
/// [`MonotonicClock`](crate::MonotonicClock) is the machine's, [`ManualClock`] is a test's; a simulation puts its own
/// behind this trait.
pub trait Clock: Send + Sync {
    /// Nanoseconds since an origin of the clock's choice, the same for its whole life.
    ///
    /// Time ends at 2^62 ns (146 years): later readings count as that.
    fn now_nanos(&self) -> u64;

    /// Completes when [`now_nanos`](Clock::now_nanos) has reached `at_nanos`, at once if it has.
    ///
    /// It may complete late, and then buckets are served late. One that completes early is asked for again. Takes
    /// that do not wait never call it, so a clock for them alone may answer `Box::pin(std::future::pending())`.
    fn sleep_until(&self, at_nanos: u64) -> Sleep;
}

/// A clock for tests: it stands still until it is moved. Clones show the same time.
///
/// Moving it wakes, first who rings first, everybody whose time has come.
#[derive(Clone, Default)]
pub struct ManualClock {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    nanos: AtomicU64,
    alarms: Mutex<Alarms>,
}

impl ManualClock {
    /// A clock that stands at zero.
    pub fn new() -> ManualClock {
        ManualClock::default()
    }

    /// Moves the clock forward; it stops at `u64::MAX` nanoseconds.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let due = {
            let mut alarms = self.shared.alarms.lock();
            // Under the lock, so that two who move it do not lose a part.
            let now_nanos = self.shared.nanos.load(Ordering::Acquire).saturating_add(by);
            self.shared.nanos.store(now_nanos, Ordering::Release);
            alarms.take_due(now_nanos)
        };
        due.into_iter().for_each(|waker| waker.wake());
    }

    /// The time to which somebody sleeps, the earliest if there are many; `None` if nobody does.
    ///
    /// A test that moves the clock from one such time to the next misses no wake-up.
    pub fn next_wake_nanos(&self) -> Option<u64> {
        self.shared.alarms.lock().next_at_nanos()
    }
}

impl Clock for ManualClock {
    fn now_nanos(&self) -> u64 {
        self.shared.nanos.load(Ordering::Acquire)
    }

    fn sleep_until(&self, at_nanos: u64) -> Sleep {
        Box::pin(ManualSleep { shared: Arc::clone(&self.shared), at_nanos, alarm: None })
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("now_nanos", &self.now_nanos()).finish()
    }
}

struct ManualSleep {
    shared: Arc<Shared>,
    at_nanos: u64,
    alarm: Option<AlarmId>,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let waker = cx.waker().clone();
        let replaced = {
            let mut alarms = this.shared.alarms.lock();
            if this.shared.nanos.load(Ordering::Acquire) >= this.at_nanos {
                return Poll::Ready(());
            }
            let (alarm, replaced) = alarms.set(this.at_nanos, this.alarm, waker);
            this.alarm = Some(alarm);
            replaced
        };
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        let waker = self.alarm.and_then(|alarm| self.shared.alarms.lock().cancel(alarm));
        drop(waker);
    }
}
