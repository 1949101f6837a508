//! What takes too long for a loop and is done beside it: large values to bytes, bytes to large values, and the end of large
//! values.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::env::Env;
use crate::group::{FrozenMachine, Group, Machine, panic_message};
use crate::id::{GroupId, MemberId, NodeId};
use crate::message::{Body, GroupMessage, WireSnapshot};
use crate::registry::Registry;

/// An errand of a member.
pub(crate) struct Errand {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) work: Work,
}

/// What is to be done.
pub(crate) enum Work {
    /// A snapshot lacks its state.
    Encode { snapshot: WireSnapshot, machine: Box<FrozenMachine> },
    /// A leader's snapshot has come whole.
    Decode { from: NodeId, message: Box<GroupMessage>, registry: Registry },
    /// The member has ended, and what it held goes.
    Drop(Box<Group>),
}

/// An errand that is done.
pub(crate) struct Done {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) result: Found,
}

/// What came of it; an error fences the member.
pub(crate) enum Found {
    Encoded(Result<WireSnapshot, String>),
    Decoded { from: NodeId, message: Box<GroupMessage>, machine: Result<Box<Machine>, String> },
}

impl Errand {
    /// Does it; gives what its member is to be told.
    fn run(self) -> Option<Done> {
        let Self { group, member, work } = self;
        let result = match work {
            Work::Encode { snapshot, machine } => {
                let state = machine.encode().map_err(|error| error.to_string());
                Found::Encoded(state.map(|state| WireSnapshot { state, ..snapshot }))
            }
            Work::Decode { from, message, registry } => {
                let machine = match &message.body {
                    Body::Snapshot { snapshot } => {
                        Machine::restore(group, &registry, snapshot.index, &snapshot.state)
                            .map(Box::new)
                            .map_err(|error| error.to_string())
                    }
                    _ => Err("it is no snapshot".into()),
                };
                Found::Decoded { from, message, machine }
            }
            Work::Drop(ended) => {
                drop_ended(ended);
                return None;
            }
        };
        Some(Done { group, member, result })
    }
}

/// Drops a member that has ended; the user's value may panic even then.
pub(crate) fn drop_ended(ended: Box<Group>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(ended))) {
        let reason = panic_message(panic.as_ref());
        tracing::error!(reason, "a value panicked when it was dropped");
    }
}

/// A loop's way to get errands done, one after the other on a thread of its own, so that no more than one value of a
/// loop is in memory twice. The thread is there from the first errand on.
pub(crate) struct Errands {
    /// No more wait than the loop has members, twice, and those that have ended.
    orders: Option<mpsc::UnboundedSender<Errand>>,
    done: mpsc::UnboundedReceiver<Done>,
    voice: mpsc::UnboundedSender<Done>,
}

impl Errands {
    pub(crate) fn new() -> Self {
        let (voice, done) = mpsc::unbounded_channel();
        Self { orders: None, done, voice }
    }

    /// What is done next.
    pub(crate) async fn hear(&mut self) -> Done {
        self.done.recv().await.expect("one voice is its own")
    }

    /// What is done by now.
    pub(crate) fn try_hear(&mut self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Has an errand done.
    pub(crate) fn order(&mut self, env: &Arc<dyn Env>, errand: Errand) {
        let orders = self.orders.get_or_insert_with(|| {
            let (orders, queue) = mpsc::unbounded_channel();
            let work = run_all(queue, self.voice.clone());
            drop(env.spawn_blocking("rafted-value errands", Box::pin(work)));
            orders
        });
        // The thread ends with the loop.
        let _ = orders.send(errand);
    }
}

async fn run_all(mut queue: mpsc::UnboundedReceiver<Errand>, voice: mpsc::UnboundedSender<Done>) {
    while let Some(errand) = queue.recv().await {
        if let Some(done) = errand.run()
            && voice.send(done).is_err()
        {
            return;
        }
    }
}
