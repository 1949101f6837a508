//! The one door to the world: clock, tasks, sleep, randomness, transport and disk.
//!
//! Everything in this workspace that is not a pure function reaches the world through [`Env`], so that the same
//! code runs on a real machine ([`RealEnv`]) and, single-threaded and decided by one seed, in the simulation.

mod real;
mod task;
mod time;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

pub use self::real::{RealEnv, random_u64_from_os};
pub use self::task::TaskHandle;
pub use self::time::MonoTime;
use crate::disk::Disk;
use crate::transport::Transport;

/// A future that owns what it needs and may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Clock, tasks, sleep, randomness, transport and disk of one node.
///
/// One value a node. Code behind the door uses runtime-neutral pieces only (`tokio::sync`, `futures-util`), and no
/// `select!` that picks a branch at random.
pub trait Env: Send + Sync + 'static {
    /// The monotonic clock: it never goes back and runs through suspend (`CLOCK_BOOTTIME`). Its origin is arbitrary,
    /// and readings of two nodes have nothing in common.
    fn now(&self) -> MonoTime;

    /// Milliseconds since 1970 by the wall clock, which may jump in both directions. It is only ever used to stamp
    /// commands, where `max(previous stamp, now)` keeps it from going back.
    fn wall_ms(&self) -> u64;

    /// 64 random bits.
    fn random_u64(&self) -> u64;

    /// Runs `task` beside the caller until it ends or its handle aborts it. A dropped handle aborts nothing. `name`
    /// appears in traces.
    fn spawn(&self, name: &'static str, task: BoxFuture<()>) -> TaskHandle;

    /// The same for a task that may hold up its thread, as writing to a disk does: it has a thread of its own.
    fn spawn_blocking(&self, name: &'static str, task: BoxFuture<()>) -> TaskHandle;

    /// Completes when the clock has reached `deadline`.
    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<()>;

    /// How this node talks to others.
    fn transport(&self) -> &Arc<dyn Transport>;

    /// What this node keeps when it ends, if it keeps anything. Only tasks of [`spawn_blocking`](Self::spawn_blocking)
    /// use it.
    fn disk(&self) -> Option<&Arc<dyn Disk>>;
}

/// Completes after `duration`.
pub fn sleep(env: &dyn Env, duration: Duration) -> BoxFuture<()> {
    env.sleep_until(env.now() + duration)
}

/// The output of `future`, or `None` when `limit` passes first.
pub async fn timeout<F: Future>(env: &dyn Env, limit: Duration, future: F) -> Option<F::Output> {
    let future = std::pin::pin!(future);
    match select(future, sleep(env, limit)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}
