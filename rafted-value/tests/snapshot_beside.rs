//! Large states are encoded beside their loop: commands go on meanwhile, and the snapshot is of the moment it was begun.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rafted_value::env::{Env, RealEnv, sleep};
use rafted_value::transport::memory::MemoryNetwork;
use rafted_value::{
    Command, CommandContext, Data, Found, Freshness, Frozen, GroupConfig, GroupId, Host, HostConfig, NodeId,
    RawData, Refused, Registry, RestoreError, SessionId, Typed, encode,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const GROUP: GroupId = GroupId(7);
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Together more than what is encoded in the loop, and more than a log may have without a snapshot.
const PIECES: usize = 3;
const PIECE_BYTES: usize = 500_000;

/// Pieces that are shared by all copies, and a count of commands.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
struct Pieces {
    pieces: Vec<Bytes>,
    commands: u64,
}

impl Data for Pieces {
    const NAME: &'static str = "pieces";
    type Command = Option<Bytes>;
    type Reply = u64;
    type Query = ();
    type Answer = (u64, u64);

    fn command(&mut self, _: &CommandContext, piece: Option<Bytes>) -> u64 {
        self.pieces.extend(piece);
        self.commands += 1;
        self.commands
    }

    fn query(&self, (): ()) -> (u64, u64) {
        (self.commands, self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    fn freeze(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// Pieces whose frozen copies wait at a gate before they are encoded.
struct Gated {
    pieces: Typed<Pieces>,
    begun: UnboundedSender<()>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl RawData for Gated {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        self.pieces.command(context, payload)
    }

    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused> {
        self.pieces.query(payload)
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        self.pieces.snapshot(out);
    }

    fn freeze(&self) -> Option<Frozen> {
        let (value, begun, gate) = (self.pieces.freeze()?, self.begun.clone(), self.gate.clone());
        Some(Box::new(move |out| {
            begun.send(()).expect("the test waits");
            gate.lock().expect("nobody panicked").recv().expect("the test opens it");
            value(out);
        }))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.pieces.restore(bytes)
    }
}

fn command(sequence: u64, piece: Option<Bytes>, env: &dyn Env) -> Command {
    Command {
        session: SessionId::new(1, 1),
        sequence,
        acknowledged: sequence,
        retry_until_ms: env.wall_ms() + 60_000,
        key_hash: 0,
        payload: encode(&piece),
    }
}

/// Each snapshot of a large state once held its loop, and all groups that it drives, for as long as the encoding took.
#[tokio::test(flavor = "multi_thread")]
async fn commands_go_on_while_a_large_state_is_encoded() {
    let (begun, mut begins) = unbounded_channel();
    let (open, gate) = channel();
    let gate = Arc::new(Mutex::new(gate));
    let registry = Registry::new().with_raw("gated", move || {
        let (begun, gate) = (begun.clone(), gate.clone());
        Box::new(Gated { pieces: Typed::default(), begun, gate })
    });
    let network = MemoryNetwork::new();
    let start = |number| {
        let env = RealEnv::new(network.join(NodeId(number), format!("node-{number}")));
        let config = HostConfig { loops: 1, ..HostConfig::default() };
        (env.clone(), Host::start(env, config, registry.clone()))
    };
    let (env, host) = start(1);
    let nodes = vec![host.node()];
    host.found(Found { group: GROUP, data: "gated".into(), config: GroupConfig::default(), nodes })
        .await
        .unwrap();
    let mut sequence = 0;
    let mut next = |piece: Option<Bytes>| {
        sequence += 1;
        command(sequence, piece, env.as_ref())
    };
    for _ in 0..PIECES {
        host.command(GROUP, next(Some(vec![7; PIECE_BYTES].into())), SECOND).await.unwrap();
    }
    begins.recv().await.unwrap();
    let before = host.status(GROUP).await.unwrap();
    for _ in 0..100 {
        host.command(GROUP, next(None), SECOND).await.unwrap();
    }
    let during = host.status(GROUP).await.unwrap();
    assert_eq!(during.snapshot_index, before.snapshot_index, "it is not there yet");
    assert!(during.last_index >= before.last_index + 100);
    // This one, and those that a new member asks for.
    for _ in 0..10 {
        open.send(()).unwrap();
    }
    while host.status(GROUP).await.unwrap().snapshot_index == before.snapshot_index {
        sleep(env.as_ref(), MS).await;
    }
    let after = host.status(GROUP).await.unwrap();
    assert!(after.snapshot_index < after.last_index, "it is of the moment when it was begun");

    let (_, second) = start(2);
    let member = host.add_learner(GROUP, second.node()).await.unwrap();
    while host.promote(GROUP, member).await.is_err() {
        sleep(env.as_ref(), MS).await;
    }
    let answer = second.query(GROUP, Freshness::Stale, encode(&()), SECOND).await.unwrap();
    let expected = (PIECES as u64 + 100, (PIECES * PIECE_BYTES) as u64);
    assert_eq!(postcard::from_bytes::<(u64, u64)>(&answer).unwrap(), expected);
}

/// A shard of a hundred thousand values once stood in the way of all groups of its loop when it went.
#[tokio::test(flavor = "multi_thread")]
async fn other_groups_go_on_while_a_large_value_is_dropped() {
    check_drop(true).await;
}

/// ... and once more when it had set aside all that it had, so that its snapshots were small.
#[tokio::test(flavor = "multi_thread")]
async fn other_groups_go_on_while_a_value_is_dropped_that_was_large_once() {
    check_drop(false).await;
}

async fn check_drop(is_state: bool) {
    const OTHER: GroupId = GroupId(8);
    let (gone, mut goes) = unbounded_channel();
    let (open, gate) = channel();
    let gate = Arc::new(Mutex::new(gate));
    let registry = Registry::new().with_raw("heavy", move || {
        let (gone, gate) = (gone.clone(), gate.clone());
        Box::new(Heavy { pieces: Typed::default(), is_state, is_heavy: false, gone, gate })
    });
    let env = RealEnv::new(MemoryNetwork::new().join(NodeId(1), "node-1"));
    let host = Host::start(env.clone(), HostConfig { loops: 1, ..HostConfig::default() }, registry);
    for group in [GROUP, OTHER] {
        let nodes = vec![host.node()];
        host.found(Found { group, data: "heavy".into(), config: GroupConfig::default(), nodes })
            .await
            .expect("it is done");
    }
    for sequence in 1..=PIECES as u64 {
        let piece = Some(vec![7; PIECE_BYTES].into());
        host.command(GROUP, command(sequence, piece, env.as_ref()), SECOND).await.expect("it is done");
    }
    host.drop_member(GROUP).await.expect("it is done");
    host.command(OTHER, command(1, None, env.as_ref()), SECOND).await.expect("it is done");
    assert!(goes.try_recv().is_err(), "the gate is closed");
    open.send(()).expect("it is done");
    goes.recv().await.expect("it is done");
}

/// Pieces that wait at a gate before they go.
struct Heavy {
    pieces: Typed<Pieces>,
    /// Whether they are in its snapshots.
    is_state: bool,
    is_heavy: bool,
    gone: UnboundedSender<()>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Drop for Heavy {
    fn drop(&mut self) {
        if self.is_heavy {
            self.gate.lock().expect("nobody panicked").recv().expect("the test opens it");
            self.gone.send(()).expect("the test waits");
        }
    }
}

impl RawData for Heavy {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        self.is_heavy |= payload.len() >= PIECE_BYTES;
        self.pieces.command(context, payload)
    }

    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused> {
        self.pieces.query(payload)
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        if self.is_state {
            self.pieces.snapshot(out);
        }
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.pieces.restore(bytes)
    }
}

/// It is told like one that cannot be encoded in the loop.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_value_that_panics_fences_its_group_with_what_it_said() {
    let registry = Registry::new().with_raw("broken", || Box::<Broken>::default());
    let env = RealEnv::new(MemoryNetwork::new().join(NodeId(1), "node-1"));
    let host = Host::start(env.clone(), HostConfig::default(), registry);
    let nodes = vec![host.node()];
    host.found(Found { group: GROUP, data: "broken".into(), config: GroupConfig::default(), nodes })
        .await
        .unwrap();
    for sequence in 1..=PIECES as u64 {
        let piece = Some(vec![7; PIECE_BYTES].into());
        host.command(GROUP, command(sequence, piece, env.as_ref()), SECOND).await.unwrap();
    }
    let reason = loop {
        match host.status(GROUP).await.unwrap().fenced {
            Some(reason) => break reason,
            None => sleep(env.as_ref(), MS).await,
        }
    };
    assert_eq!(reason, "the value cannot be taken down: not to be had");
}

/// Pieces that cannot be encoded once they are frozen.
#[derive(Default)]
struct Broken(Typed<Pieces>);

impl RawData for Broken {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        self.0.command(context, payload)
    }

    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused> {
        self.0.query(payload)
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        self.0.snapshot(out);
    }

    fn freeze(&self) -> Option<Frozen> {
        Some(Box::new(|_| panic!("not to be had")))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.0.restore(bytes)
    }
}
