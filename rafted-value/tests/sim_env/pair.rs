//! Two nodes that know each other, and a service that echoes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rafted_value::NodeId;
use rafted_value::env::Env;
use rafted_value::sim::{NetConfig, Sim, SimEnv};
use rafted_value::transport::{CallError, Handler, Lane, Reply, SendError, ServiceId};

pub(crate) const ECHO: ServiceId = ServiceId(100);
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Remembers casts; answers a call with its payload, drops that of "drop", and keeps that of "keep".
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) casts: Mutex<Vec<(NodeId, Bytes)>>,
    pub(crate) kept: Mutex<Vec<Reply>>,
}

impl Handler for Echo {
    fn on_cast(&self, from: NodeId, payload: Bytes) {
        self.casts.lock().push((from, payload));
    }

    fn on_call(&self, _from: NodeId, payload: Bytes, reply: Reply) {
        match &payload[..] {
            b"drop" => drop(reply),
            b"keep" => self.kept.lock().push(reply),
            _ => reply.send(payload),
        }
    }
}

impl Echo {
    pub(crate) fn payloads(&self) -> Vec<Bytes> {
        self.casts.lock().iter().map(|(_, payload)| payload.clone()).collect()
    }
}

pub(crate) struct Pair {
    pub(crate) sim: Sim,
    pub(crate) a: Arc<SimEnv>,
    pub(crate) b: Arc<SimEnv>,
    pub(crate) at_a: Arc<Echo>,
    pub(crate) at_b: Arc<Echo>,
}

pub(crate) fn echo_on(env: &SimEnv) -> Arc<Echo> {
    let echo = Arc::new(Echo::default());
    env.transport().register(ECHO, Arc::<Echo>::clone(&echo));
    echo
}

/// Two nodes that know each other's address.
pub(crate) fn pair_with(seed: u64, config: NetConfig) -> Pair {
    let sim = Sim::new(seed, config);
    let (a, b) = (sim.start_node("a", "sim:a"), sim.start_node("b", "sim:b"));
    a.transport().set_address(b.node(), "sim:b");
    b.transport().set_address(a.node(), "sim:a");
    let (at_a, at_b) = (echo_on(&a), echo_on(&b));
    Pair { sim, a, b, at_a, at_b }
}

pub(crate) fn pair(seed: u64) -> Pair {
    pair_with(seed, NetConfig::default())
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Pair {
    /// A call from the first node to the second, and how long it took.
    pub(crate) fn call(
        &self,
        payload: &'static [u8],
        limit: Duration,
    ) -> (Result<Bytes, CallError>, Duration) {
        let before = self.sim.elapsed();
        let call =
            self.a.transport().call(self.b.node(), Lane::Normal, ECHO, Bytes::from_static(payload), limit);
        let result = self.sim.run_until(limit + LIMIT, call).expect("a call ends at its limit");
        (result, self.sim.elapsed() - before)
    }

    pub(crate) fn cast(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.a.transport().cast(self.b.node(), Lane::Normal, ECHO, payload.into())
    }
}
