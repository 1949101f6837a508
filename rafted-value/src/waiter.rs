//! Who waits for an answer: a task on this node, or a caller on another.

use serde::Serialize;
use tokio::sync::oneshot;

use crate::transport::Reply;

/// Waits for one `T`; answered once or dropped.
pub(crate) enum Waiter<T> {
    /// A task on this node.
    Local(oneshot::Sender<T>),
    /// A caller on another node, who gets the value in postcard.
    Remote(Reply),
}

impl<T: Serialize> Waiter<T> {
    /// A waiter and the receiving end on this node.
    pub(crate) fn local() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self::Local(sender), receiver)
    }

    /// Delivers the answer; a caller who has gone does not get it.
    pub(crate) fn answer(self, value: T) {
        match self {
            Self::Local(sender) => drop(sender.send(value)),
            Self::Remote(reply) => reply.send(crate::data::encode(&value)),
        }
    }
}
