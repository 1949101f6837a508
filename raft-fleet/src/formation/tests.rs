//! Formation under every order of messages that a schedule of choices can make.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rafted_value::encode;
use rafted_value::env::MonoTime;

use super::*;
use crate::node_info::NodeInfo;

fn config(expect: usize, places: usize) -> FormationConfig {
    FormationConfig {
        bootstrap_expect: expect,
        seeds: (0..places).map(address).collect(),
        cluster_members_max: 7,
        cluster_group: GroupConfig::default(),
        seen_max: Duration::from_secs(2),
        proposal_max: Duration::from_secs(5),
        backoff_max: Duration::from_secs(1),
        renounce_after: Duration::from_secs(2),
        addresses_max: 64,
        refused_max: 64,
        cluster: None,
    }
}

fn address(place: usize) -> String {
    format!("host-{place}:1")
}

fn info(place: usize, node: NodeId) -> NodeInfo {
    NodeInfo { node, name: format!("node-{place}"), zone: "z".into(), address: address(place) }
}

#[derive(Clone, Debug)]
enum Message {
    Hello(String, Hello),
    HelloReply(String, Hello, HelloReply),
    Propose(FoundingRecord),
    ProposeReply(ClusterId, ProposeReply),
    Activate(FoundingRecord),
    ActivateReply,
    Renounce(ClusterId),
    RenounceReply(ClusterId, RenounceReply),
}

struct World {
    now: MonoTime,
    expect: usize,
    /// The life at each place.
    lives: Vec<Formation>,
    ids: Vec<NodeId>,
    /// Places cut off from all others.
    cut: BTreeSet<usize>,
    flying: Vec<(NodeId, NodeId, Message)>,
    next: u64,
}

impl World {
    fn new(places: usize, expect: usize) -> Self {
        let mut world = World {
            now: MonoTime::ZERO,
            expect,
            lives: Vec::new(),
            ids: Vec::new(),
            cut: BTreeSet::new(),
            flying: Vec::new(),
            next: 0,
        };
        for place in 0..places {
            let (id, life) = world.life(place, places);
            world.ids.push(id);
            world.lives.push(life);
        }
        world
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        // Ids in no order of their age (the multiplier is odd, so nothing repeats).
        self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn life(&mut self, place: usize, places: usize) -> (NodeId, Formation) {
        let id = NodeId(self.draw());
        (id, Formation::new(info(place, id), config(self.expect, places)))
    }

    fn crash(&mut self, place: usize) {
        let (id, life) = self.life(place, self.lives.len());
        self.ids[place] = id;
        self.lives[place] = life;
    }

    fn reachable(&self, from: usize, to: usize) -> bool {
        from == to || !(self.cut.contains(&from) || self.cut.contains(&to))
    }

    /// One round of hellos and due actions of one node; the messages fly.
    fn tick(&mut self, place: usize) {
        let me = self.ids[place];
        for at in self.lives[place].addresses() {
            let to = (0..self.ids.len()).find(|to| address(*to) == at);
            match to.filter(|to| self.reachable(place, *to)) {
                Some(to) if to != place => {
                    self.lives[place].on_discovered(&at, self.ids[to]);
                    let hello = self.lives[place].hello();
                    self.flying.push((me, self.ids[to], Message::Hello(at, hello)));
                }
                _ => self.lives[place].on_nobody(&at),
            }
        }
        let random = u128::from(self.draw());
        for action in self.lives[place].poll(self.now, random) {
            let (to, message) = match action {
                FormationAction::Propose { to, record } => (to, Message::Propose(record)),
                FormationAction::Activate { to, record } => (to, Message::Activate(record)),
                FormationAction::Renounce { to, cluster } => (to, Message::Renounce(cluster)),
            };
            self.flying.push((me, to, message));
        }
        if let Some(FormationOutcome::Join { cluster, node }) = self.lives[place].outcome(self.now) {
            let majority = self.live_majority();
            let reaches =
                self.ids.iter().position(|id| *id == node).is_some_and(|at| self.reachable(place, at));
            if reaches && majority == Some(cluster) && self.lives[place].begin_join(cluster) {
                self.lives[place].joined(cluster);
            }
        }
    }

    fn deliver(&mut self, at: usize, again: bool) {
        let (from, to, message) = if again { self.flying[at].clone() } else { self.flying.swap_remove(at) };
        let Some(place) = self.ids.iter().position(|id| *id == to) else { return };
        if self.ids.iter().position(|id| *id == from).is_some_and(|from| !self.reachable(from, place)) {
            return;
        }
        let now = self.now;
        let life = &mut self.lives[place];
        let reply = match message {
            Message::Hello(at, hello) => Message::HelloReply(at, hello.clone(), life.on_hello(now, hello)),
            Message::Propose(record) => Message::ProposeReply(record.cluster, life.on_propose(now, record)),
            Message::Activate(record) => {
                life.on_activate(record);
                Message::ActivateReply
            }
            Message::Renounce(cluster) => Message::RenounceReply(cluster, life.on_renounce(cluster)),
            Message::HelloReply(at, hello, reply) => return life.on_hello_reply(now, &at, &hello, reply),
            Message::ProposeReply(cluster, reply) => return life.on_propose_reply(from, cluster, reply),
            Message::ActivateReply => return life.on_activate_reply(from),
            Message::RenounceReply(cluster, reply) => return life.on_renounce_reply(from, cluster, reply),
        };
        self.flying.push((to, from, reply));
    }

    /// The records that are activated by living nodes that are a majority of their lists.
    fn live_majorities(&self) -> Vec<ClusterId> {
        let mut activated = BTreeMap::<u128, (usize, usize)>::new();
        for life in &self.lives {
            if let Some(FormationOutcome::Founded(record)) = life.outcome(self.now) {
                let entry = activated.entry(record.cluster.0).or_insert((0, record.majority()));
                entry.0 += 1;
            }
        }
        let enough = activated.into_iter().filter(|(_, (count, majority))| count >= majority);
        enough.map(|(cluster, _)| ClusterId(cluster)).collect()
    }

    fn live_majority(&self) -> Option<ClusterId> {
        self.live_majorities().first().copied()
    }

    fn check(&self) {
        let majorities = self.live_majorities();
        assert!(majorities.len() <= 1, "two clusters: {majorities:?}");
    }

    /// Rounds in which everything arrives at once.
    fn calm(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.now = self.now + Duration::from_millis(200);
            for place in 0..self.lives.len() {
                self.tick(place);
                while !self.flying.is_empty() {
                    self.deliver(0, false);
                    self.check();
                }
            }
        }
    }

    fn cluster_of(&self, place: usize) -> Option<ClusterId> {
        let life = &self.lives[place];
        match (life.outcome(self.now), life.standing()) {
            (Some(FormationOutcome::Founded(record)), _) => Some(record.cluster),
            (_, Standing::Member(cluster)) => Some(cluster),
            _ => None,
        }
    }
}

/// Plays a schedule: each choice is one step.
fn play(world: &mut World, choices: &[(u8, u16)], crashes_max: usize) {
    let mut crashes = 0;
    for (kind, choice) in choices {
        let place = usize::from(*choice) % world.lives.len();
        let at = |world: &World| usize::from(*choice) % world.flying.len();
        match kind % 16 {
            0..=2 => world.tick(place),
            3 => world.now = world.now + Duration::from_millis(u64::from(*choice % 1500)),
            4 if crashes < crashes_max => {
                crashes += 1;
                world.crash(place);
            }
            5 if choice % 3 == 0 => {
                world.cut.insert(place);
            }
            6 if choice % 2 == 0 => world.cut.clear(),
            7 if !world.flying.is_empty() => drop(world.flying.swap_remove(at(world))),
            8 if !world.flying.is_empty() => world.deliver(at(world), true),
            9..=15 if !world.flying.is_empty() => world.deliver(at(world), false),
            _ => (),
        }
        world.check();
    }
}

fn schedule(steps: usize) -> impl Strategy<Value = Vec<(u8, u16)>> {
    prop::collection::vec((any::<u8>(), any::<u16>()), 0..steps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// All places found together: whatever is lost, delayed, repeated or restarted, never two clusters.
    #[test]
    fn no_schedule_of_faults_and_restarts_makes_two_clusters(
        places in 1..6_usize, choices in schedule(600),
    ) {
        let mut world = World::new(places, places);
        play(&mut world, &choices, usize::MAX);
        world.cut.clear();
        world.calm(100);
    }

    /// More nodes than are expected: without a restart no partition makes two clusters, as long as two sets of the
    /// expected size always share a node.
    #[test]
    fn no_partition_makes_two_clusters_when_a_majority_is_expected(
        (places, expect) in prop_oneof![Just((3, 2)), Just((4, 3)), Just((5, 3)), Just((5, 4))],
        choices in schedule(600),
    ) {
        let mut world = World::new(places, expect);
        play(&mut world, &choices, 0);
        world.cut.clear();
        world.calm(100);
        let cluster = world.live_majority();
        prop_assert!(cluster.is_some());
        for place in 0..places {
            prop_assert_eq!(world.cluster_of(place), cluster, "place {}", place);
        }
    }

    /// Once the faults end, one crash at whatever moment does not keep the nodes from forming one cluster.
    #[test]
    fn one_crash_at_any_moment_does_not_keep_nodes_from_forming(
        places in 3..6_usize, choices in schedule(300),
    ) {
        let mut world = World::new(places, places);
        play(&mut world, &choices, 1);
        world.cut.clear();
        world.flying.clear();
        world.calm(200);
        let cluster = world.live_majority();
        prop_assert!(cluster.is_some());
        for place in 0..places {
            prop_assert_eq!(world.cluster_of(place), cluster, "place {}", place);
        }
    }
}

#[test]
fn one_node_that_expects_itself_forms_at_once() {
    let mut world = World::new(1, 1);
    world.tick(0);
    assert!(world.cluster_of(0).is_some());
}

#[test]
fn a_node_that_expects_only_itself_looks_at_its_seeds_first() {
    let mut world = World::new(2, 1);
    world.cut.insert(1);
    world.tick(0);
    assert!(world.cluster_of(0).is_some(), "nobody answers, so it stands alone");
    world.cut.clear();
    world.calm(3);
    assert_eq!(world.cluster_of(1), world.cluster_of(0));
}

/// Three places whose proposer has all grants and has not yet heard of them; gives the proposer's place and the others.
fn all_granted() -> (World, usize, [usize; 2]) {
    let mut world = World::new(3, 3);
    let proposer = (0..3).min_by_key(|place| world.ids[*place]).unwrap();
    let others = [(proposer + 1) % 3, (proposer + 2) % 3];
    let is_grant = |message: &Message| matches!(message, Message::ProposeReply(_, ProposeReply::Granted));
    while world.flying.iter().filter(|(_, _, message)| is_grant(message)).count() < 2 {
        world.now = world.now + Duration::from_millis(200);
        (0..3).for_each(|place| world.tick(place));
        while let Some(at) = world.flying.iter().position(|(_, _, message)| !is_grant(message)) {
            world.deliver(at, false);
        }
    }
    (world, proposer, others)
}

#[test]
fn grants_for_a_proposer_that_died_undecided_are_given_back() {
    let (mut world, proposer, _) = all_granted();
    world.crash(proposer);
    world.flying.clear();
    world.calm(5);
    assert!(world.live_majority().is_none(), "the proposer's death is believed only after a while");
    world.calm(60);
    assert!((0..3).all(|place| world.cluster_of(place) == world.live_majority()));
    assert!(world.live_majority().is_some());
}

/// The proposer activates, tells one node and dies. The third node must wait for what that one node knows.
#[test]
fn a_grant_is_kept_while_a_listed_node_that_may_know_more_is_away() {
    let (mut world, proposer, [told, waits]) = all_granted();
    while !world.flying.is_empty() {
        world.deliver(0, false);
    }
    world.tick(proposer);
    let is_activation = |(_, to, message): &(NodeId, NodeId, Message), place: usize| {
        matches!(message, Message::Activate(_)) && *to == world.ids[place]
    };
    let at = world.flying.iter().position(|flying| is_activation(flying, told)).unwrap();
    world.deliver(at, false);
    world.flying.clear();
    let cluster = world.cluster_of(told);
    assert!(cluster.is_some());
    world.cut.insert(told);
    world.crash(proposer);
    world.calm(100);
    assert_eq!(world.cluster_of(waits), None);
    world.cut.clear();
    world.calm(30);
    assert!((0..3).all(|place| world.cluster_of(place) == cluster));
}

#[test]
fn an_activation_that_comes_after_the_record_was_renounced_is_refused() {
    let (mut world, proposer, others) = all_granted();
    let record = world.lives[proposer].proposed().unwrap();
    world.crash(proposer);
    world.flying.clear();
    world.calm(60);
    let cluster = world.live_majority();
    assert_ne!(cluster, Some(record.cluster));
    for place in others {
        assert_eq!(world.lives[place].on_activate(record.clone()), ActivateReply::Refused);
    }
}

#[test]
fn fewer_nodes_than_expected_wait() {
    let mut world = World::new(3, 3);
    world.cut.insert(2);
    world.calm(50);
    assert!((0..3).all(|place| world.cluster_of(place).is_none()));
    world.cut.clear();
    world.calm(10);
    assert!((0..3).all(|place| world.cluster_of(place).is_some()));
}

#[test]
fn nodes_that_expect_different_numbers_do_not_found_together() {
    let mut world = World::new(3, 3);
    let id = world.ids[1];
    world.lives[1] = Formation::new(info(1, id), config(2, 3));
    world.calm(50);
    assert!(world.live_majority().is_none());
}

/// What a node answers that joined this cluster.
fn formed_reply(place: usize, cluster: u128) -> HelloReply {
    HelloReply {
        info: info(place, NodeId(100 + place as u64)),
        addresses: vec![],
        sees: vec![],
        standing: Standing::Member(ClusterId(cluster)),
        abandoned: false,
    }
}

/// A node with the seeds 0 and 1 hears of those that answer at these places, each of its cluster.
fn hears_of(own: Option<u128>, answers: &[(usize, u128)]) -> Option<FormationOutcome> {
    let config = FormationConfig { cluster: own.map(ClusterId), ..config(3, 2) };
    let mut node = Formation::new(info(9, NodeId(9)), config);
    let hello = node.hello();
    for (place, cluster) in answers {
        node.on_hello_reply(MonoTime::ZERO, &address(*place), &hello, formed_reply(*place, *cluster));
    }
    node.outcome(MonoTime::ZERO)
}

/// It once joined the one whose node had the lowest id.
#[test]
fn a_node_whose_seeds_are_of_two_clusters_joins_neither_unless_it_is_told_which() {
    let join = |cluster, place: u64| {
        Some(FormationOutcome::Join { cluster: ClusterId(cluster), node: NodeId(100 + place) })
    };
    let both = [(address(0), ClusterId(5)), (address(1), ClusterId(6))];
    assert_eq!(hears_of(None, &[(0, 5), (1, 6)]), Some(FormationOutcome::SeveralClusters(both)));
    assert_eq!(hears_of(Some(6), &[(0, 5), (1, 6)]), join(6, 1));
    assert_eq!(hears_of(None, &[(0, 5), (1, 5)]), join(5, 0));
    assert_eq!(hears_of(Some(7), &[(0, 5)]), join(5, 0), "which is then refused by its name");
}

/// Nodes remember the addresses that were named to them, also by one that was given those of two clusters.
#[test]
fn a_cluster_that_is_only_heard_of_counts_where_no_seed_is_of_one() {
    let join = |cluster, place: u64| {
        Some(FormationOutcome::Join { cluster: ClusterId(cluster), node: NodeId(100 + place) })
    };
    assert_eq!(hears_of(None, &[(7, 6), (1, 5)]), join(5, 1));
    assert_eq!(hears_of(None, &[(1, 5), (0, 5), (7, 6)]), join(5, 0));
    assert_eq!(hears_of(None, &[(7, 6)]), join(6, 7));
}

#[test]
fn the_sent_bytes_never_change() {
    let record = FoundingRecord {
        cluster: ClusterId(5),
        nodes: vec![info(0, NodeId(1))],
        cluster_members_max: 7,
        config: GroupConfig::default(),
    };
    let hello = Hello { info: info(0, NodeId(1)), addresses: vec![address(1)], granted: Some(ClusterId(5)) };
    let reply = |standing| HelloReply {
        info: info(0, NodeId(1)),
        addresses: vec![],
        sees: vec![NodeId(2)],
        standing,
        abandoned: true,
    };
    crate::golden::check(
        "formation",
        &[
            ("record", &encode(&record)),
            ("hello", &encode(&hello)),
            ("unformed", &encode(&reply(Standing::Unformed))),
            ("founded", &encode(&reply(Standing::Founded(Box::new(record.clone()))))),
            ("member", &encode(&reply(Standing::Member(ClusterId(5))))),
            ("propose", &encode(&[ProposeReply::Granted, ProposeReply::Denied])),
            ("activate", &encode(&[ActivateReply::Activated, ActivateReply::Refused])),
            ("dead", &encode(&RenounceReply::Dead)),
            ("renounced", &encode(&RenounceReply::Renounced)),
            ("activated", &encode(&RenounceReply::Activated(Box::new(record)))),
            ("unavailable", &encode(&RenounceReply::Unavailable)),
        ],
    );
}
