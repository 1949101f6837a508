//! Snapshots as somebody would give them who means no good, or whose memory is broken: a node that speaks as the leader of
//! a group, and a host that listens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Machine;
use crate::config::{GroupConfig, HostConfig, PIECE_BYTES};
use crate::data::{CommandContext, Data, encode};
use crate::engine::Found;
use crate::env::{Env, sleep};
use crate::host::Host;
use crate::id::{GroupId, MemberId, NodeId};
use crate::message::{BatchWriter, Body, GroupMessage, WireSnapshot, read_batch};
use crate::registry::Registry;
use crate::request::Freshness;
use crate::service::PEER_SERVICE;
use crate::sim::{NetConfig, Sim, SimDisk, SimEnv};
use crate::status::GroupStatus;
use crate::transport::{Handler, Lane, Reply};

const GROUP: GroupId = GroupId(7);
/// A group of the host's own, which has nothing to do with all this.
const OTHER: GroupId = GroupId(8);
const LEADER: MemberId = MemberId(1);
const VICTIM: MemberId = MemberId(2);
const TERM: u64 = 5;
const INDEX: u64 = 9;
const OFFER: u64 = 77;
const PIECE: u64 = PIECE_BYTES as u64;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A value that fills three pieces from the start.
#[derive(Serialize, Deserialize)]
struct Blob(Bytes);

impl Default for Blob {
    fn default() -> Self {
        Self((0..2 * PIECE_BYTES + 1000).map(|at| (at / 1000) as u8).collect())
    }
}

impl Data for Blob {
    const NAME: &'static str = "blob";
    type Command = ();
    type Reply = ();
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, (): ()) {}

    fn query(&self, (): ()) -> u64 {
        twox_hash::XxHash3_64::oneshot(&self.0)
    }
}

/// Keeps what the host says to the leader.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<GroupMessage>>>);

impl Handler for Ear {
    fn on_cast(&self, _: NodeId, payload: Bytes) {
        self.0.lock().extend(read_batch(&payload).expect("a host says what can be read"));
    }

    fn on_call(&self, _: NodeId, _: Bytes, _: Reply) {}
}

struct Attack {
    sim: Sim,
    leader: Arc<SimEnv>,
    host: Host,
    ear: Ear,
    state: Bytes,
}

fn registry() -> Registry {
    Registry::new().with::<Blob>()
}

impl Attack {
    fn new(seed: u64, config: HostConfig) -> Self {
        let sim = Sim::new(seed, NetConfig::default());
        let victim = sim.start_node("victim", "sim:1");
        let host = Host::start(victim.clone(), HostConfig { loops: 1, ..config }, registry());
        Self::on(sim, &victim, host)
    }

    /// A host with a disk, each of whose syncs takes as long from when it has the leader's state.
    fn on_disk(seed: u64, sync_takes: Duration) -> Self {
        let sim = Sim::new(seed, NetConfig::default());
        let disk = SimDisk::new(sim.rng());
        let victim = sim.start_node_on(NodeId(1000), disk.disk(), "victim", "sim:1");
        let opened = Host::open(victim.clone(), HostConfig { loops: 1, ..HostConfig::default() }, registry());
        let host = sim.run_until(5 * SECOND, opened).expect("it ends in time").expect("the disk is empty");
        let attack = Self::on(sim, &victim, host);
        attack.offer(OFFER, attack.length());
        attack.give([0, PIECE, 2 * PIECE]);
        attack.check_whole();
        disk.set_sync_latency(Some(Arc::new(move || sleep(victim.as_ref(), sync_takes))));
        attack
    }

    fn on(sim: Sim, victim: &Arc<SimEnv>, host: Host) -> Self {
        let leader = sim.start_node("leader", "sim:0");
        let nodes = [&leader, victim].map(|env| env.transport().local().node);
        leader.transport().set_address(nodes[1], "sim:1");
        victim.transport().set_address(nodes[0], "sim:0");
        let ear = Ear::default();
        leader.transport().register(PEER_SERVICE, Arc::new(ear.clone()));
        let members = BTreeMap::from([(LEADER, nodes[0]), (VICTIM, nodes[1])]);
        let machine = Machine::found(GROUP, &registry(), Blob::NAME, GroupConfig::default(), members);
        let state = machine.expect("it is registered").snapshot(0).expect("it encodes");
        let attack = Self { sim, leader, host, ear, state };
        let (data, nodes) = (Blob::NAME.into(), vec![attack.host.node()]);
        let found = Found { group: OTHER, data, config: GroupConfig::default(), nodes };
        let founder = attack.host.clone();
        attack.run(async move { founder.found(found).await }).expect("it is new");
        attack
    }

    fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.sim.run_until(5 * SECOND, future).expect("it ends in time")
    }

    fn say_of_term(&self, term: u64, body: Body) {
        let mut writer = BatchWriter::default();
        writer.push(&GroupMessage { group: GROUP, from: LEADER, to: VICTIM, term, body });
        for batch in writer.take() {
            self.leader
                .transport()
                .cast(self.host.node(), Lane::Bulk, PEER_SERVICE, batch)
                .expect("it is queued");
        }
        self.sim.run_for(50 * MS);
    }

    fn say(&self, body: Body) {
        self.say_of_term(TERM, body);
    }

    fn snapshot() -> WireSnapshot {
        let (voters, learners) = (vec![LEADER], vec![VICTIM]);
        WireSnapshot { index: INDEX, term: TERM, voters, learners, state: Bytes::new() }
    }

    fn offer(&self, offer: u64, bytes: u64) {
        self.say(Body::Offer { offer, snapshot: Self::snapshot(), bytes });
    }

    fn piece(&self, offer: u64, offset: u64, bytes: Bytes) {
        self.say(Body::Piece { offer, offset, bytes });
    }

    /// The piece that belongs there.
    fn true_piece(&self, offset: u64) -> Bytes {
        let start = offset as usize;
        self.state.slice(start..self.state.len().min(start + PIECE_BYTES))
    }

    fn give(&self, offsets: impl IntoIterator<Item = u64>) {
        offsets.into_iter().for_each(|offset| self.piece(OFFER, offset, self.true_piece(offset)));
    }

    fn length(&self) -> u64 {
        self.state.len() as u64
    }

    /// The pieces that the host has asked for since it was looked at last.
    fn asked(&self) -> Vec<(u64, u64)> {
        let heard = std::mem::take(&mut *self.ear.0.lock());
        let pull = |message: GroupMessage| match message.body {
            Body::Pull { offer, offset } => Some((offer, offset)),
            _ => None,
        };
        heard.into_iter().filter_map(pull).collect()
    }

    /// The rounds of the beats that the host has acknowledged since it was looked at last.
    fn acknowledged(&self) -> Vec<u64> {
        let heard = std::mem::take(&mut *self.ear.0.lock());
        let round = |message: GroupMessage| match message.body {
            Body::BeatAck { round, .. } => Some(round),
            _ => None,
        };
        heard.into_iter().filter_map(round).collect()
    }

    fn status_of(&self, group: GroupId) -> Option<GroupStatus> {
        let host = self.host.clone();
        self.run(async move { host.status(group).await })
    }

    fn status(&self) -> GroupStatus {
        self.status_of(GROUP).expect("a member is there")
    }

    /// The member has the value, whole.
    #[track_caller]
    fn check_whole(&self) {
        let status = self.status();
        assert_eq!((status.fenced, status.data.as_str(), status.snapshot_index), (None, Blob::NAME, INDEX));
        let host = self.host.clone();
        let query = async move { host.query(GROUP, Freshness::Stale, encode(&()), SECOND).await };
        assert_eq!(self.run(query), Ok(encode(&Blob::default().query(()))));
    }

    /// Nothing came of it, and the host goes on with what it has otherwise.
    #[track_caller]
    fn check_nothing(&self, what: &str) {
        if let Some(status) = self.status_of(GROUP) {
            assert_eq!((status.data.as_str(), status.fenced), ("", None), "{what}");
        }
        self.check_others();
    }

    #[track_caller]
    fn check_others(&self) {
        let other = self.status_of(OTHER).expect("it was founded");
        assert_eq!((other.ready, other.fenced), (true, None));
    }
}

fn attack(seed: u64) -> Attack {
    Attack::new(seed, HostConfig::default())
}

#[test]
fn pieces_may_come_in_any_order_and_any_number_of_times() {
    for (seed, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]].into_iter().enumerate() {
        let attack = attack(seed as u64);
        attack.offer(OFFER, attack.length());
        assert_eq!(attack.asked(), [(OFFER, 0), (OFFER, PIECE), (OFFER, 2 * PIECE)]);
        for piece in &order[..2] {
            attack.give([piece * PIECE, piece * PIECE]);
        }
        attack.check_nothing("one is missing");
        attack.give(order.map(|piece| piece * PIECE));
        attack.check_whole();
        attack.give(order.map(|piece| piece * PIECE));
        attack.check_whole();
    }
}

#[test]
fn what_is_no_piece_of_the_offer_is_not_taken_for_one() {
    let attack = attack(10);
    attack.offer(OFFER, attack.length());
    let wrong = Bytes::from(vec![9; PIECE_BYTES]);
    attack.piece(OFFER + 1, 0, wrong.clone());
    attack.piece(OFFER - 1, PIECE, wrong.clone());
    attack.piece(0, 0, wrong.clone());
    for (offset, bytes) in [
        (0, PIECE - 1),
        (0, PIECE + 1),
        (0, 0),
        (1, PIECE),
        (3 * PIECE, PIECE),
        (u64::MAX, 0),
        (2 * PIECE, PIECE),
    ] {
        attack.piece(OFFER, offset, vec![9; bytes as usize].into());
    }
    assert_eq!(attack.status().snapshot_held_bytes, 0, "nothing of it is held");
    attack.give([0, PIECE, 2 * PIECE]);
    attack.check_whole();
}

#[test]
fn a_newer_offer_begins_anew_and_nothing_of_the_older_one_is_in_it() {
    let attack = attack(11);
    attack.offer(OFFER - 1, attack.length());
    attack.piece(OFFER - 1, 0, vec![9; PIECE_BYTES].into());
    attack.offer(OFFER, attack.length());
    assert_eq!(attack.status().snapshot_held_bytes, 0);
    attack.piece(OFFER - 1, PIECE, vec![9; PIECE_BYTES].into());
    attack.give([0, PIECE, 2 * PIECE]);
    attack.check_whole();
}

/// The length is what a peer says, and no room is made for what has not come.
#[test]
fn a_sender_that_promises_more_than_it_gives_costs_no_more_than_it_gave_and_is_given_up() {
    let limits = HostConfig { snapshot_retry: SECOND, uninitialised_max: SECOND, ..HostConfig::default() };
    let attack = Attack::new(12, limits);
    let longer = 4 << 30;
    attack.offer(OFFER, longer);
    assert_eq!(attack.asked().len(), 4, "a few pieces at a time, however many there are");
    attack.give([0, PIECE]);
    assert_eq!(attack.status().snapshot_held_bytes, 2 * PIECE);
    attack.sim.run_for(9 * SECOND);
    let again = attack.asked();
    assert!(
        (4..=400).contains(&again.len()) && again.iter().all(|(_, offset)| *offset >= 2 * PIECE),
        "{again:?}"
    );
    attack.sim.run_for(5 * SECOND);
    assert_eq!(attack.status_of(GROUP), None, "a member that never got its state is dropped");
    attack.check_others();
    // The same leader, once it has come to its senses.
    attack.offer(OFFER, attack.length());
    attack.give([0, PIECE, 2 * PIECE]);
    attack.check_whole();
}

#[test]
fn a_sender_that_promises_less_than_there_is_fences_that_member_alone() {
    for bytes in [1, 100, PIECE, 2 * PIECE, 2 * PIECE + 999] {
        let attack = attack(13);
        attack.offer(OFFER, bytes);
        for offset in (0..bytes).step_by(PIECE_BYTES) {
            let end = bytes.min(offset + PIECE) as usize;
            attack.piece(OFFER, offset, attack.state.slice(offset as usize..end));
        }
        let fenced = attack.status().fenced.expect("half a state is none");
        assert!(fenced.contains("state at index 9 does not decode"), "{bytes} bytes: {fenced}");
        attack.check_others();
    }
}

/// What the next version of this crate may send, before this node has it.
#[test]
fn a_state_of_a_newer_format_fences_its_member_alone_and_says_so() {
    for beside in [0, u64::MAX] {
        let limits = HostConfig { snapshot_beside_bytes: beside, ..HostConfig::default() };
        let attack = Attack::new(14, limits);
        let mut newer = attack.state.to_vec();
        newer[0] = 1;
        attack.offer(OFFER, attack.length());
        for (position, piece) in newer.chunks(PIECE_BYTES).enumerate() {
            attack.piece(OFFER, position as u64 * PIECE, piece.to_vec().into());
        }
        let fenced = attack.status().fenced.expect("it cannot be read");
        assert!(fenced.contains("state at index 9 does not decode"), "{fenced}");
        attack.check_others();
    }
}

#[test]
fn offers_that_no_leader_makes_come_to_nothing() {
    let good = Attack::snapshot();
    let offers = [
        ("of no bytes", TERM, good.clone(), 0),
        ("over the limit", TERM, good.clone(), (4 << 30) + 1),
        ("of all bytes there are", TERM, good.clone(), u64::MAX),
        ("without voters", TERM, WireSnapshot { voters: vec![], ..good.clone() }, 10),
        ("at no index", TERM, WireSnapshot { index: 0, ..good.clone() }, 10),
        ("at the last index of all", TERM, WireSnapshot { index: u64::MAX, ..good.clone() }, 10),
        ("of a term to come", TERM, WireSnapshot { term: TERM + 1, ..good.clone() }, 10),
        ("of no term", 0, WireSnapshot { term: 0, ..good.clone() }, 10),
    ];
    for (what, term, snapshot, bytes) in offers {
        let attack = attack(15);
        attack.say_of_term(term, Body::Offer { offer: OFFER, snapshot: snapshot.clone(), bytes });
        assert_eq!(attack.asked(), [], "{what}");
        attack.check_nothing(what);
        // The same in one message.
        if what != "over the limit" {
            attack.say_of_term(term, Body::Snapshot { snapshot });
        }
        attack.say_of_term(term, Body::Pull { offer: OFFER, offset: 0 });
        attack.say_of_term(term, Body::Piece { offer: OFFER, offset: 0, bytes: Bytes::new() });
        attack.sim.run_for(SECOND);
        attack.check_others();
    }
}

/// It is not there, or it leads nothing.
#[test]
fn who_has_made_no_offer_is_asked_for_pieces_in_vain() {
    let attack = attack(16);
    for offset in [0, 1, u64::MAX] {
        attack.say(Body::Pull { offer: OFFER, offset });
        attack.piece(OFFER, offset, vec![1; PIECE_BYTES].into());
    }
    assert_eq!(attack.status_of(GROUP), None, "nobody was made by that");
    attack.offer(OFFER, attack.length());
    attack.asked();
    attack.say(Body::Pull { offer: OFFER, offset: 0 });
    assert_eq!(attack.asked(), []);
    attack.give([0, PIECE, 2 * PIECE]);
    attack.check_whole();
}

/// An answer that waited for the disk took the number of the newest beat when it left. That beat had asked for a longer promise,
/// which the disk did not know yet: the leader relied on it, and a loss of power had the member forget it.
#[test]
fn a_beat_is_acknowledged_once_the_disk_knows_its_promise_and_not_with_an_answer_to_one_before() {
    let takes = 200 * MS;
    let attack = Attack::on_disk(17, takes);
    let beat = |round: u64, promise_ms: u32| {
        let said = attack.sim.elapsed();
        attack.say(Body::Beat { commit: INDEX, round, promise_ms });
        said
    };
    attack.acknowledged();
    beat(1, 100);
    assert_eq!(attack.acknowledged(), [1], "the disk knows of a promise as long as that");
    let (mut said, mut answers) = (BTreeMap::new(), 0);
    let check = |said: &BTreeMap<u64, Duration>| {
        let heard = attack.acknowledged();
        for round in heard.iter().filter(|round| **round > 1) {
            let after = attack.sim.elapsed() - said[round];
            assert!(after >= takes, "round {round} is acknowledged after {after:?}");
        }
        heard
    };
    // Each asks for a longer promise than the one before.
    for round in 2..20 {
        said.insert(round, beat(round, round as u32 * 200));
        answers += check(&said).len();
    }
    assert!(answers > 0, "those that the disk knows are answered");
    attack.sim.run_for(3 * takes);
    assert_eq!(check(&said).last(), Some(&19));
    attack.check_others();
}
