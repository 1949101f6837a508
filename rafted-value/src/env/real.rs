//! The real door: the machine's clocks, tokio's tasks and timers, the operating system's randomness.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use super::{BoxFuture, Env, MonoTime, TaskHandle};
use crate::disk::Disk;
use crate::transport::Transport;

/// An [`Env`] on a tokio runtime.
pub struct RealEnv {
    runtime: tokio::runtime::Handle,
    transport: Arc<dyn Transport>,
    disk: Option<Arc<dyn Disk>>,
    rng: parking_lot::Mutex<ChaCha12Rng>,
}

impl RealEnv {
    /// The door of the node that `transport` belongs to, on the tokio runtime that the caller is in.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, or when the operating system gives no randomness.
    pub fn new(transport: Arc<dyn Transport>) -> Arc<Self> {
        Self::make(transport, None)
    }

    /// The same for a node that keeps what it knows on `disk`.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn with_disk(transport: Arc<dyn Transport>, disk: Arc<dyn Disk>) -> Arc<Self> {
        Self::make(transport, Some(disk))
    }

    fn make(transport: Arc<dyn Transport>, disk: Option<Arc<dyn Disk>>) -> Arc<Self> {
        Arc::new(Self {
            runtime: tokio::runtime::Handle::current(),
            transport,
            disk,
            rng: parking_lot::Mutex::new(ChaCha12Rng::from_os_rng()),
        })
    }
}

/// 64 bits from the operating system, for what is drawn before there is an [`Env`], such as a node's own id.
///
/// # Panics
///
/// Panics when the operating system gives no randomness.
pub fn random_u64_from_os() -> u64 {
    ChaCha12Rng::from_os_rng().next_u64()
}

impl Env for RealEnv {
    fn now(&self) -> MonoTime {
        let time = rustix::time::clock_gettime(CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        MonoTime::from_nanos(seconds * 1_000_000_000 + nanos)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random_u64(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<()>) -> TaskHandle {
        let (handle, task) = TaskHandle::wrap(task);
        drop(self.runtime.spawn(task));
        handle
    }

    /// # Panics
    ///
    /// Panics when the system gives no thread.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn spawn_blocking(&self, name: &'static str, task: BoxFuture<()>) -> TaskHandle {
        let (handle, task) = TaskHandle::wrap(task);
        let runtime = self.runtime.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        drop(thread.spawn(move || runtime.block_on(task)).expect("the system gives a thread"));
        handle
    }

    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<()> {
        let wait = deadline.since(self.now());
        Box::pin(tokio::time::sleep(wait))
    }

    fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    fn disk(&self) -> Option<&Arc<dyn Disk>> {
        self.disk.as_ref()
    }
}

/// The clock of leases and promises must run while the machine is suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
/// `CLOCK_MONOTONIC` runs through suspend on this system.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
