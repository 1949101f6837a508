//! The state machine of [`Formation`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rafted_value::NodeId;
use rafted_value::env::MonoTime;
use rafted_value::transport::ClusterId;

use super::message::{
    ActivateReply, FoundingRecord, Hello, HelloReply, ProposeReply, RenounceReply, Standing,
};
use super::{FormationAction, FormationConfig, FormationOutcome};
use crate::group_name::check_word;
use crate::node_info::NodeInfo;

/// One node's part in the formation of a cluster: a pure state machine, time an argument.
///
/// A node grants one [`FoundingRecord`]; a record is activated when all its nodes have granted it; a grant is given back
/// only on proof that its record can never be activated by a majority of its list.
#[derive(Debug)]
pub struct Formation {
    me: NodeInfo,
    config: FormationConfig,
    /// Every known address, with the node that answered there last.
    addresses: BTreeMap<String, Option<NodeId>>,
    untried_seeds: BTreeSet<String>,
    peers: BTreeMap<NodeId, Peer>,
    grant: Option<Grant>,
    refused: BTreeSet<ClusterId>,
    proposal: Option<Proposal>,
    propose_after: MonoTime,
    /// A node that proposed a record of another number of nodes than this one expects, and that number.
    other_number: Option<(String, usize)>,
    /// The node that last denied a proposal of this one.
    denied_by: Option<NodeId>,
    founded: Option<FoundingRecord>,
    /// Listed nodes that have not yet said that they have activated our record.
    untold: BTreeSet<NodeId>,
    /// The cluster that this node asks to take it in right now; meanwhile it takes part in no founding.
    joining: Option<ClusterId>,
    member: Option<ClusterId>,
}

#[derive(Debug)]
struct Peer {
    info: NodeInfo,
    at: MonoTime,
    sees_me: bool,
    formed: Option<ClusterId>,
    /// Whether it answered at an address that this node was given, and did not only hear of.
    at_seed: bool,
}

#[derive(Debug)]
struct Grant {
    record: FoundingRecord,
    /// Since when the proposer's address has been answered by another life.
    orphan_since: Option<MonoTime>,
    renounced: BTreeSet<NodeId>,
    /// Since when a cluster of this record has been seen.
    formed_since: Option<MonoTime>,
}

impl Grant {
    fn new(record: FoundingRecord) -> Self {
        Self { record, orphan_since: None, renounced: BTreeSet::new(), formed_since: None }
    }
}

#[derive(Debug)]
struct Proposal {
    record: FoundingRecord,
    granted: BTreeSet<NodeId>,
    denied: bool,
    since: MonoTime,
}

impl Formation {
    /// The machine of an unformed node.
    pub fn new(me: NodeInfo, config: FormationConfig) -> Self {
        let seeds: BTreeSet<String> = config.seeds.iter().take(config.addresses_max).cloned().collect();
        let addresses = seeds.iter().map(|seed| (seed.clone(), None)).collect();
        let untried_seeds = seeds.into_iter().filter(|seed| *seed != me.address).collect();
        Self {
            me,
            config,
            addresses,
            untried_seeds,
            peers: BTreeMap::new(),
            grant: None,
            refused: BTreeSet::new(),
            proposal: None,
            propose_after: MonoTime::ZERO,
            other_number: None,
            denied_by: None,
            founded: None,
            untold: BTreeSet::new(),
            joining: None,
            member: None,
        }
    }

    /// The machine of a node that has belonged to a cluster since an earlier life, as a founder where it has the record.
    pub fn formed(
        me: NodeInfo,
        config: FormationConfig,
        cluster: ClusterId,
        record: Option<FoundingRecord>,
    ) -> Self {
        let member = record.is_none().then_some(cluster);
        Self { founded: record, member, ..Self::new(me, config) }
    }

    /// The addresses to say hello to; the own one is not among them.
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.keys().filter(|address| **address != self.me.address).cloned().collect()
    }

    /// The nodes that answered lately, for a log line.
    pub fn seen(&self, now: MonoTime) -> Vec<NodeInfo> {
        self.fresh(now).map(|peer| peer.info.clone()).collect()
    }

    /// What stands in the way of a cluster, as far as this node knows, for a log line.
    pub fn obstacle(&self, now: MonoTime) -> String {
        let expect = self.config.bootstrap_expect;
        let seen = self.fresh(now).count() + 1;
        let seeing: Vec<&Peer> = self.fresh(now).filter(|peer| peer.sees_me).collect();
        let lowest =
            seeing.iter().min_by_key(|peer| peer.info.node).filter(|peer| peer.info.node < self.me.node);
        let counted = format!("{seen} of the {expect} nodes of bootstrap_expect are seen");
        let infos = self.fresh(now).map(|peer| &peer.info).chain([&self.me]);
        if let Some((one, other)) = namesakes(infos) {
            return format!(
                "{counted}; the nodes at {} and {} are both named {:?}, and each needs a name of its own",
                one.address, other.address, one.name
            );
        }
        if let Some((name, number)) = &self.other_number {
            return format!(
                "{counted}; node {name:?} expects {number}, and the number must be the same on all"
            );
        }
        match (self.denied_by, lowest) {
            (Some(node), _) => {
                format!("{counted}; node {node} denied the founding, and may expect another number of nodes")
            }
            (None, Some(peer)) if seeing.len() + 1 >= expect => {
                let name = &peer.info.name;
                format!(
                    "{counted}; node {name:?} is to propose the founding, and may expect another number of nodes"
                )
            }
            _ => counted,
        }
    }

    /// What has become of this node, once something has.
    pub fn outcome(&self, now: MonoTime) -> Option<FormationOutcome> {
        if let Some(record) = &self.founded {
            return Some(FormationOutcome::Founded(record.clone()));
        }
        // The cluster that this node is about to found with others takes it in as a founder, which its record will
        // tell; only when no founder is left that knows the record does the node join like any other.
        let founding = self.grant.as_ref().and_then(|grant| {
            let waited = now.since(grant.formed_since?);
            (waited < self.config.seen_max.saturating_mul(5)).then_some(grant.record.cluster)
        });
        let formed = self.fresh(now).filter_map(|peer| Some((peer.formed?, peer)));
        let formed: Vec<(ClusterId, &Peer)> =
            formed.filter(|(cluster, _)| founding != Some(*cluster)).collect();
        let own = self.config.cluster;
        if let Some((cluster, peer)) = formed.iter().find(|(cluster, _)| own == Some(*cluster)) {
            return Some(FormationOutcome::Join { cluster: *cluster, node: peer.info.node });
        }
        // Whoever was given addresses of two clusters has told their nodes of each other: hearsay counts only where no
        // address that was given answers.
        let (given, heard): (Vec<_>, Vec<_>) = formed.into_iter().partition(|(_, peer)| peer.at_seed);
        let (cluster, peer) = *given.first().or(heard.first())?;
        if let Some((other, there)) = given.iter().find(|(other, _)| *other != cluster) {
            let seen = [(peer.info.address.clone(), cluster), (there.info.address.clone(), *other)];
            return Some(FormationOutcome::SeveralClusters(seen));
        }
        Some(FormationOutcome::Join { cluster, node: peer.info.node })
    }

    /// This node is about to ask a cluster to take it in. Says whether it may: not when it has founded one by now.
    /// Until [`joined`](Self::joined) or [`join_failed`](Self::join_failed) it takes part in no founding.
    pub fn begin_join(&mut self, cluster: ClusterId) -> bool {
        if self.is_formed() {
            return false;
        }
        self.joining = Some(cluster);
        if self.proposal.take().is_some() {
            self.release();
        }
        true
    }

    /// The cluster did not take this node in, or it is not known whether it did: being listed by a cluster that the
    /// node then takes no part in does no harm, it is purged there.
    pub fn join_failed(&mut self) {
        self.joining = None;
    }

    /// This node has joined a cluster.
    pub fn joined(&mut self, cluster: ClusterId) {
        assert!(self.founded.is_none() && self.joining == Some(cluster), "one node, one cluster");
        self.joining = None;
        self.member = Some(cluster);
        if let Some(grant) = self.grant.take() {
            self.refused.insert(grant.record.cluster);
        }
    }

    /// The record that this node proposes at the moment.
    pub fn proposed(&self) -> Option<FoundingRecord> {
        self.proposal.as_ref().map(|proposal| proposal.record.clone())
    }

    /// The hello to send to every address.
    pub fn hello(&self) -> Hello {
        Hello {
            info: self.me.clone(),
            addresses: self.addresses.keys().cloned().collect(),
            granted: self.grant.as_ref().map(|grant| grant.record.cluster),
        }
    }

    /// Somebody says hello.
    pub fn on_hello(&mut self, now: MonoTime, hello: Hello) -> HelloReply {
        self.learn_addresses([hello.info.address].into_iter().chain(hello.addresses));
        let is_mine = |granted| {
            let proposal = self.proposal.as_ref().map(|proposal| &proposal.record);
            [proposal, self.founded.as_ref()].into_iter().flatten().any(|record| record.cluster == granted)
        };
        HelloReply {
            info: self.me.clone(),
            addresses: self.addresses.keys().cloned().collect(),
            sees: self.fresh(now).map(|peer| peer.info.node).collect(),
            standing: self.standing(),
            abandoned: hello.granted.is_some_and(|granted| !is_mine(granted)),
        }
    }

    /// Nobody answered the hello at this address, or this node itself is there.
    pub fn on_nobody(&mut self, address: &str) {
        self.untried_seeds.remove(address);
    }

    /// Another node answers at this address, whether or not it then answers the hello.
    pub fn on_discovered(&mut self, address: &str, node: NodeId) {
        if let Some(answer) = self.addresses.get_mut(address) {
            *answer = Some(node);
        }
    }

    /// The answer at `address` to `hello`.
    pub fn on_hello_reply(&mut self, now: MonoTime, address: &str, hello: &Hello, reply: HelloReply) {
        self.untried_seeds.remove(address);
        if reply.info.validate().is_err() || reply.info.node == self.me.node {
            return;
        }
        self.learn_addresses([reply.info.address.clone()].into_iter().chain(reply.addresses));
        let node = reply.info.node;
        if self.peers.len() >= self.config.addresses_max && !self.peers.contains_key(&node) {
            return;
        }
        if let Some(grant) = &self.grant
            && reply.abandoned
            && hello.granted == Some(grant.record.cluster)
            && grant.record.proposer().is_some_and(|proposer| proposer.node == node)
        {
            self.release();
        }
        let formed = match reply.standing {
            Standing::Unformed => None,
            Standing::Member(cluster) => Some(cluster),
            Standing::Founded(record) => {
                let cluster = record.cluster;
                if record.lists(self.me.node) {
                    self.on_activate(*record);
                }
                Some(cluster)
            }
        };
        if let Some(grant) = &mut self.grant
            && formed == Some(grant.record.cluster)
        {
            grant.formed_since.get_or_insert(now);
        }
        let sees_me = reply.sees.contains(&self.me.node);
        let is_seed = self.config.seeds.iter().any(|seed| seed == address);
        let at_seed = is_seed || self.peers.get(&node).is_some_and(|former| former.at_seed);
        self.peers.insert(node, Peer { info: reply.info, at: now, sees_me, formed, at_seed });
    }

    /// Another node proposes a record.
    pub fn on_propose(&mut self, now: MonoTime, record: FoundingRecord) -> ProposeReply {
        if let Some(grant) = &self.grant {
            let same = grant.record == record && !self.refused.contains(&record.cluster);
            return if same { ProposeReply::Granted } else { ProposeReply::Denied };
        }
        if record.nodes.len() != self.config.bootstrap_expect
            && let Some(proposer) = record.proposer().filter(|proposer| proposer.validate().is_ok())
        {
            self.other_number = Some((proposer.name.clone(), record.nodes.len()));
        }
        let expected = record.nodes.len() == self.config.bootstrap_expect
            && record.nodes.is_sorted_by(|a, b| a.node < b.node)
            && record.nodes.iter().all(|info| info.validate().is_ok())
            && namesakes(&record.nodes).is_none()
            && record.nodes.contains(&self.me)
            && record.config.validate().is_ok()
            && !self.refused.contains(&record.cluster);
        if !expected
            || self.is_formed()
            || self.joining.is_some()
            || self.fresh(now).any(|peer| peer.formed.is_some())
        {
            return ProposeReply::Denied;
        }
        self.grant = Some(Grant::new(record));
        ProposeReply::Granted
    }

    /// The answer of `from` to the proposal of the record with this id.
    pub fn on_propose_reply(&mut self, from: NodeId, cluster: ClusterId, reply: ProposeReply) {
        let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.record.cluster == cluster)
        else {
            return;
        };
        match reply {
            ProposeReply::Granted if proposal.record.lists(from) => {
                proposal.granted.insert(from);
            }
            ProposeReply::Granted => (),
            ProposeReply::Denied => {
                proposal.denied = true;
                self.denied_by = Some(from);
            }
        }
    }

    /// A record is said to be activated. Only one that this node granted, and has not renounced, can be.
    pub fn on_activate(&mut self, record: FoundingRecord) -> ActivateReply {
        if self.founded.as_ref() == Some(&record) {
            return ActivateReply::Activated;
        }
        let granted = self.grant.as_ref().is_some_and(|grant| grant.record == record);
        if !granted || self.is_formed() || self.joining.is_some() || self.refused.contains(&record.cluster) {
            return ActivateReply::Refused;
        }
        self.activate(record);
        ActivateReply::Activated
    }

    /// The answer of `from` to the activation; it need not be told again.
    pub fn on_activate_reply(&mut self, from: NodeId) {
        self.untold.remove(&from);
    }

    /// A node that granted this record asks whether it is dead.
    pub fn on_renounce(&mut self, cluster: ClusterId) -> RenounceReply {
        if let Some(founded) = self.founded.as_ref().filter(|record| record.cluster == cluster) {
            return RenounceReply::Activated(Box::new(founded.clone()));
        }
        let grant = self.grant.as_ref().filter(|grant| grant.record.cluster == cluster);
        let alive = |proposer: &NodeInfo| !self.is_gone(proposer);
        if grant.is_some_and(|grant| grant.record.proposer().is_some_and(alive)) {
            return RenounceReply::Unavailable;
        }
        let holds = grant.is_some();
        if !self.refuse(cluster) {
            return RenounceReply::Unavailable;
        }
        if holds { RenounceReply::Renounced } else { RenounceReply::Dead }
    }

    /// The answer of `from` about the record with this id.
    pub fn on_renounce_reply(&mut self, from: NodeId, cluster: ClusterId, reply: RenounceReply) {
        let Some(grant) = self.grant.as_mut().filter(|grant| grant.record.cluster == cluster) else { return };
        if self.founded.is_some() || !grant.record.lists(from) {
            return;
        }
        match reply {
            RenounceReply::Dead => self.release(),
            RenounceReply::Renounced => {
                grant.renounced.insert(from);
            }
            RenounceReply::Activated(record) => {
                self.on_activate(*record);
            }
            RenounceReply::Unavailable => (),
        }
    }

    /// Does what is due; called every few hundred milliseconds and whenever an answer has come. `random` is used for
    /// a cluster id and for jitter.
    pub fn poll(&mut self, now: MonoTime, random: u128) -> Vec<FormationAction> {
        let seen_max = self.config.seen_max;
        self.peers.retain(|_, peer| now.since(peer.at) <= seen_max);
        let mut actions = Vec::new();
        if self.founded.is_none() && self.member.is_none() {
            self.settle_proposal(now, random);
            self.propose(now, random);
            self.settle_proposal(now, random);
            self.renounce(now, &mut actions);
        }
        if let Some(Proposal { record, granted, .. }) = &self.proposal {
            let waiting = record.nodes.iter().map(|info| info.node).filter(|node| !granted.contains(node));
            actions.extend(waiting.map(|to| FormationAction::Propose { to, record: record.clone() }));
        }
        if let Some(record) = &self.founded {
            let gone = record.nodes.iter().filter(|info| self.is_gone(info)).map(|info| info.node);
            let gone: Vec<NodeId> = gone.collect();
            self.untold.retain(|node| !gone.contains(node));
            let untold = self.untold.iter();
            actions.extend(untold.map(|to| FormationAction::Activate { to: *to, record: record.clone() }));
        }
        actions
    }

    fn propose(&mut self, now: MonoTime, random: u128) {
        let blocked = self.grant.is_some() || self.joining.is_some() || !self.untried_seeds.is_empty();
        if blocked || now < self.propose_after || self.fresh(now).any(|peer| peer.formed.is_some()) {
            return;
        }
        let mut nodes: Vec<NodeInfo> = self
            .fresh(now)
            .filter(|peer| peer.sees_me && !self.is_gone(&peer.info))
            .map(|peer| peer.info.clone())
            .chain([self.me.clone()])
            .collect();
        nodes.sort_by_key(|info| info.node);
        let expect = self.config.bootstrap_expect;
        if nodes.len() < expect || nodes[0].node != self.me.node || namesakes(&nodes).is_some() {
            return;
        }
        nodes.truncate(expect);
        let record = FoundingRecord {
            cluster: ClusterId(random),
            nodes,
            cluster_members_max: self.config.cluster_members_max,
            config: self.config.cluster_group.clone(),
        };
        self.grant = Some(Grant::new(record.clone()));
        self.proposal = Some(Proposal { record, granted: [self.me.node].into(), denied: false, since: now });
    }

    /// Activates the own proposal when all have granted it, and abandons it when they will not.
    fn settle_proposal(&mut self, now: MonoTime, random: u128) {
        let Some(Proposal { record, granted, denied, since }) = &self.proposal else { return };
        let late = now.since(*since) > self.config.proposal_max;
        let somebody_left = record.nodes.iter().any(|info| self.is_gone(info));
        if granted.len() == record.nodes.len() {
            let record = record.clone();
            self.untold = granted.iter().copied().filter(|node| *node != self.me.node).collect();
            self.activate(record);
        } else if *denied || late || somebody_left {
            let backoff_nanos = self.config.backoff_max.as_nanos().max(1);
            let jitter = u64::try_from(random % backoff_nanos).unwrap_or(0);
            self.propose_after = now + Duration::from_nanos(jitter);
            self.proposal = None;
            self.release();
        }
    }

    fn activate(&mut self, record: FoundingRecord) {
        assert!(self.founded.is_none() && self.member.is_none(), "a node founds one cluster");
        assert!(!self.refused.contains(&record.cluster), "a record that was renounced stays dead");
        self.proposal = None;
        self.founded = Some(record);
    }

    /// Works towards giving back a grant whose proposer's life is over.
    fn renounce(&mut self, now: MonoTime, actions: &mut Vec<FormationAction>) {
        let Some(record) = self.grant.as_ref().map(|grant| grant.record.clone()) else { return };
        let orphan = record.proposer().is_none_or(|proposer| self.is_gone(proposer));
        let others: Vec<NodeId> = record
            .nodes
            .iter()
            .filter(|info| info.node != self.me.node && !self.is_gone(info))
            .map(|info| info.node)
            .collect();
        // An activation that another listed node knows of must win: so all of them must first be seen unformed.
        let seen = others.iter().all(|node| {
            self.peers
                .get(node)
                .is_some_and(|peer| peer.formed.is_none() && now.since(peer.at) <= self.config.seen_max)
        });
        let Some(grant) = self.grant.as_mut() else { return };
        if !orphan {
            grant.orphan_since = None;
            return;
        }
        let since = *grant.orphan_since.get_or_insert(now);
        if now.since(since) < self.config.renounce_after || !seen {
            return;
        }
        let missing: Vec<NodeId> =
            others.iter().copied().filter(|node| !grant.renounced.contains(node)).collect();
        let promised = record.nodes.iter().filter(|info| grant.renounced.contains(&info.node)).count() + 1;
        if missing.is_empty() && record.nodes.len() - promised < record.majority() {
            if self.refuse(record.cluster) {
                self.release();
            }
            return;
        }
        let cluster = record.cluster;
        actions.extend(missing.into_iter().map(|to| FormationAction::Renounce { to, cluster }));
    }

    /// Gives the grant back: its record can never be activated.
    fn release(&mut self) {
        assert!(self.founded.is_none(), "what was activated was not dead");
        self.grant = None;
    }

    /// Remembers never to activate a record; says whether there was room to.
    fn refuse(&mut self, cluster: ClusterId) -> bool {
        if self.refused.len() >= self.config.refused_max && !self.refused.contains(&cluster) {
            return false;
        }
        self.refused.insert(cluster);
        true
    }

    /// How far this node has come, as it tells others.
    pub fn standing(&self) -> Standing {
        match (&self.founded, self.member) {
            (Some(record), _) => Standing::Founded(Box::new(record.clone())),
            (None, Some(cluster)) => Standing::Member(cluster),
            (None, None) => Standing::Unformed,
        }
    }

    fn is_formed(&self) -> bool {
        self.founded.is_some() || self.member.is_some()
    }

    /// Whether the address of this life of a node was last answered by another life.
    fn is_gone(&self, info: &NodeInfo) -> bool {
        info.node != self.me.node
            && (info.address == self.me.address
                || self
                    .addresses
                    .get(&info.address)
                    .is_some_and(|answer| answer.is_some_and(|node| node != info.node)))
    }

    fn fresh(&self, now: MonoTime) -> impl Iterator<Item = &Peer> {
        let seen_max = self.config.seen_max;
        self.peers.values().filter(move |peer| now.since(peer.at) <= seen_max)
    }

    fn learn_addresses(&mut self, addresses: impl IntoIterator<Item = String>) {
        for address in addresses.into_iter().take(self.config.addresses_max) {
            if self.addresses.len() >= self.config.addresses_max {
                return;
            }
            if check_word("address", &address).is_ok() {
                self.addresses.entry(address).or_insert(None);
            }
        }
    }
}

/// Two nodes of one name: they cannot be in one cluster.
fn namesakes<'a>(nodes: impl IntoIterator<Item = &'a NodeInfo>) -> Option<(&'a NodeInfo, &'a NodeInfo)> {
    let mut by_name = BTreeMap::<&str, &NodeInfo>::new();
    nodes.into_iter().find_map(|info| Some((by_name.insert(&info.name, info)?, info)))
}
