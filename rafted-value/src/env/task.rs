//! A running task that can be ended.

use futures_util::future::{AbortHandle, Abortable};

use super::BoxFuture;

/// Ends a task that was spawned through [`Env::spawn`](super::Env::spawn). Dropping it leaves the task running.
#[derive(Clone, Debug)]
pub struct TaskHandle(AbortHandle);

impl TaskHandle {
    /// Wraps `task` so that the handle can end it; for implementations of [`Env`](super::Env).
    pub fn wrap(task: BoxFuture<()>) -> (Self, BoxFuture<()>) {
        let (handle, registration) = AbortHandle::new_pair();
        let task = Abortable::new(task, registration);
        let run = async move {
            // Ended or aborted: nobody asks which.
            let _ = task.await;
        };
        (Self(handle), Box::pin(run))
    }

    /// Ends the task at its next await; does nothing if it has ended.
    pub fn abort(&self) {
        self.0.abort();
    }
}
