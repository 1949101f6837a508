//! The registered handlers, and the one place that calls them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::counters::LiveCounters;
use crate::handler::{Handler, Reply};
use crate::id::{NodeId, ServiceId};

/// Handlers by service.
pub(crate) struct Services {
    handlers: RwLock<BTreeMap<ServiceId, Arc<dyn Handler>>>,
    counters: Arc<LiveCounters>,
}

impl Services {
    pub(crate) fn new(counters: Arc<LiveCounters>) -> Services {
        Services { handlers: RwLock::default(), counters }
    }

    /// Puts a handler in charge of a service, instead of the one before.
    pub(crate) fn register(&self, service: ServiceId, handler: Arc<dyn Handler>) {
        self.handlers.write().insert(service, handler);
    }

    /// Hands a cast to its handler.
    pub(crate) fn deliver_cast(&self, from: NodeId, service: ServiceId, payload: Bytes) {
        match self.find(service) {
            Some(handler) => self.guarded(service, || handler.on_cast(from, payload)),
            None => self.counters.casts_without_handler.increment(),
        }
    }

    /// Hands a call to its handler, or answers that there is none.
    pub(crate) fn deliver_call(&self, from: NodeId, service: ServiceId, payload: Bytes, reply: Reply) {
        match self.find(service) {
            Some(handler) => self.guarded(service, || handler.on_call(from, payload, reply)),
            None => reply.no_handler(),
        }
    }

    fn find(&self, service: ServiceId) -> Option<Arc<dyn Handler>> {
        self.handlers.read().get(&service).cloned()
    }

    /// A handler that panics costs its message, not the lane: its reply is dropped while unwinding.
    fn guarded(&self, service: ServiceId, handle: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(handle)).is_err() {
            self.counters.handler_panics.increment();
            tracing::error!(%service, "handler panicked");
        }
    }
}
