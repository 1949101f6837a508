//! What the user of an endpoint provides: a handler per service, and the reply it owes each call.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::calls::Answer;
use crate::frame::Outcome;
use crate::id::NodeId;
use crate::lane::Lane;
use crate::link::Link;

/// Receives the messages of one service.
///
/// It is called on the task that reads the lane the message came on, one message at a time, in order. **It must
/// not block**: while it runs, nothing else of that lane is read. Whatever takes longer than some microseconds
/// belongs on a task or a queue of the handler's own; a [`Reply`] may be carried there. A handler that panics
/// costs its own message only.
pub trait Handler: Send + Sync + 'static {
    /// Takes a cast of node `from`.
    fn on_cast(&self, from: NodeId, payload: Bytes);

    /// Takes a call of node `from`, and owes it `reply`.
    fn on_call(&self, from: NodeId, payload: Bytes, reply: Reply);
}

/// The answer owed to one call.
///
/// It may be sent from anywhere, at any time. Dropped unsent, the caller gets
/// [`CallError::NoReply`](crate::CallError::NoReply) at once.
pub struct Reply {
    route: Option<Route>,
}

/// Where the answer goes.
pub(crate) enum Route {
    /// Back through the connection the call came on, and through no later one.
    Remote { link: Arc<Link>, lane: Lane, correlation: u64 },
    /// To a caller in this process.
    Local { waiter: oneshot::Sender<Answer> },
}

impl Reply {
    pub(crate) fn new(route: Route) -> Reply {
        Reply { route: Some(route) }
    }

    /// Answers the call; it never blocks.
    ///
    /// An answer whose connection is gone is dropped, as its caller has been told; one that is over the lane's
    /// limit, or finds the lane full, becomes a `NoReply` there. Both are counted.
    pub fn send(mut self, payload: Bytes) {
        if let Some(route) = self.route.take() {
            route.finish(Outcome::Reply(payload));
        }
    }

    /// Answers that there is no handler.
    pub(crate) fn no_handler(mut self) {
        if let Some(route) = self.route.take() {
            route.finish(Outcome::NoHandler);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(route) = self.route.take() {
            route.finish(Outcome::NoReply);
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl Route {
    fn finish(self, outcome: Outcome) {
        match self {
            Route::Remote { link, lane, correlation } => link.answer(lane, correlation, outcome),
            // A caller that gave up is not waiting.
            Route::Local { waiter } => drop(waiter.send(Answer::Outcome(outcome))),
        }
    }
}
