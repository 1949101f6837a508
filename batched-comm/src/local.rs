//! Messages of a node to itself: they skip the network, not the queue.
//!
//! A handler is never called on its sender's stack, so that it may hold no lock of the sender's and two services
//! that write to each other cannot recurse. One task a lane delivers, in order, as if the messages had come from
//! a peer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::calls::Answer;
use crate::handler::{Reply, Route};
use crate::id::{NodeId, ServiceId};
use crate::lane::Lane;
use crate::services::Services;

/// Why a message to this very node was not queued.
pub(crate) enum LocalError {
    Full,
    Closed,
}

/// The queues of this node's messages to itself.
pub(crate) struct LocalLanes {
    lanes: [mpsc::Sender<LocalMessage>; 3],
}

struct LocalMessage {
    service: ServiceId,
    payload: Bytes,
    waiter: Option<oneshot::Sender<Answer>>,
}

impl LocalLanes {
    /// Starts the delivering tasks; they end when the lanes are dropped.
    pub(crate) fn start(node: NodeId, queue_messages_max: usize, services: &Arc<Services>) -> LocalLanes {
        let lanes = Lane::ALL.map(|_| {
            let (sender, receiver) =
                mpsc::channel(queue_messages_max.min(tokio::sync::Semaphore::MAX_PERMITS));
            tokio::spawn(deliver_all(node, services.clone(), receiver));
            sender
        });
        LocalLanes { lanes }
    }

    /// Queues a cast, or a call when there is a `waiter`.
    pub(crate) fn push(
        &self,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
        waiter: Option<oneshot::Sender<Answer>>,
    ) -> Result<(), LocalError> {
        let message = LocalMessage { service, payload, waiter };
        self.lanes[lane.index()].try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LocalError::Full,
            mpsc::error::TrySendError::Closed(_) => LocalError::Closed,
        })
    }
}

async fn deliver_all(node: NodeId, services: Arc<Services>, mut messages: mpsc::Receiver<LocalMessage>) {
    while let Some(LocalMessage { service, payload, waiter }) = messages.recv().await {
        match waiter {
            None => services.deliver_cast(node, service, payload),
            Some(waiter) => {
                services.deliver_call(node, service, payload, Reply::new(Route::Local { waiter }));
            }
        }
    }
}
