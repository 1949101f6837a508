//! The run queue and the wakers that fill it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

/// Names a task within one simulation; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TaskId(pub(super) u64);

/// The tasks that can run, first in, first out.
///
/// Its lock is a leaf: nothing else is locked, woken or dropped under it, so that a task may be woken from anywhere.
#[derive(Debug, Default)]
pub(super) struct RunQueue(Mutex<VecDeque<TaskId>>);

impl RunQueue {
    pub(super) fn push(&self, task: TaskId) {
        self.0.lock().push_back(task);
    }

    pub(super) fn pop(&self) -> Option<TaskId> {
        self.0.lock().pop_front()
    }
}

/// Puts its task on the run queue, once until the task is polled.
#[derive(Debug)]
pub(super) struct TaskWaker {
    task: TaskId,
    queued: AtomicBool,
    queue: Arc<RunQueue>,
}

impl TaskWaker {
    pub(super) fn new(task: TaskId, queue: &Arc<RunQueue>) -> Arc<Self> {
        Arc::new(Self { task, queued: AtomicBool::new(false), queue: Arc::clone(queue) })
    }

    /// From now on a wake queues the task again; called right before it is polled.
    pub(super) fn rearm(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.queue.push(self.task);
        }
    }
}
