//! The future behind `sleep_until`: it waits in node time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::clock::NodeClock;
use super::executor::{Executor, NodeIndex, TimerKey};
use crate::env::MonoTime;

/// Completes when a node's clock shows `deadline`. Dropping it takes its timer away.
pub(super) struct Sleep {
    executor: Arc<Executor>,
    node: NodeIndex,
    clock: Arc<Mutex<NodeClock>>,
    deadline: MonoTime,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn new(
        executor: Arc<Executor>,
        node: NodeIndex,
        clock: Arc<Mutex<NodeClock>>,
        deadline: MonoTime,
    ) -> Self {
        Self { executor, node, clock, deadline, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = self.executor.now();
        let due = {
            let clock = self.clock.lock();
            if clock.read(now) >= self.deadline {
                return Poll::Ready(());
            }
            clock.when(now, self.deadline)
        };
        // A change of the clock's drift fires its timers early; then this is a new one.
        let kept = self.timer.is_some_and(|timer| self.executor.rewake(timer, context.waker()));
        if !kept {
            self.timer = Some(self.executor.wake_at(due, self.node, context.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.executor.cancel(timer);
        }
    }
}
