//! The nodes of one seed: each place in the network holds one life of a node at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rafted_value::env::Env;
use rafted_value::sim::{NetConfig, Sim, SimEnv};
use rafted_value::{Found, GroupId, Host, HostConfig, MemberId, NodeId, Registry, Role};

use super::directory::Directory;
use super::invariants::Sighting;
use super::lists::Lists;
use super::plan::{GroupPlan, Plan, ms};
use super::witness::Witness;

/// All nodes, and what their members said of themselves last.
pub(super) struct Cluster {
    pub(super) sim: Sim,
    pub(super) places: Vec<Place>,
    pub(super) directory: Arc<Directory>,
    host_config: HostConfig,
    registry: Registry,
    views: BTreeMap<(usize, GroupId), Arc<Sighting>>,
}

/// A place in the network.
pub(super) struct Place {
    pub(super) address: String,
    pub(super) life: Option<Life>,
}

/// One life of one node.
pub(super) struct Life {
    pub(super) env: Arc<SimEnv>,
    pub(super) host: Host,
    pub(super) paused: bool,
}

impl Cluster {
    /// The nodes of a plan, which know the data types of its groups.
    pub(super) fn start(sim: Sim, plan: &Plan, witness: &Arc<Witness>) -> Self {
        let mut registry = Registry::new();
        for group in plan.groups.iter().map(|group| group.id) {
            let witness = witness.clone();
            registry =
                registry.with_raw(Lists::name(group), move || Box::new(Lists::new(group, witness.clone())));
        }
        let place = |index| Place { address: format!("sim:{index}"), life: None };
        let places: Vec<Place> = (0..plan.nodes).map(place).collect();
        let (views, host_config) = (BTreeMap::new(), plan.host.clone());
        let mut cluster = Self { sim, places, directory: Arc::default(), host_config, registry, views };
        for place in 0..cluster.places.len() {
            cluster.start_node(place);
        }
        cluster
    }

    /// Starts a new, empty node at a place that is free.
    pub(super) fn start_node(&mut self, place: usize) {
        let address = self.places[place].address.clone();
        let env = self.sim.start_node(&format!("node-{place}"), &address);
        self.directory.enter(env.node(), &address);
        for (node, address) in self.directory.all() {
            env.transport().set_address(node, &address);
        }
        for life in self.lives() {
            life.env.transport().set_address(env.node(), &address);
        }
        let host = Host::start(env.clone(), self.host_config.clone(), self.registry.clone());
        self.places[place].life = Some(Life { env, host, paused: false });
    }

    /// Founds a group on the first places.
    pub(super) fn found(&self, group: &GroupPlan) -> Result<(), String> {
        let founders = if group.founded_together { group.voters } else { 1 };
        let nodes: Vec<NodeId> = self.lives().take(founders).map(|life| life.env.node()).collect();
        let found = Found {
            group: GroupId(group.id),
            data: Lists::name(group.id),
            config: group.config.clone(),
            nodes: nodes.clone(),
        };
        let hosts: Vec<Host> = self.lives().take(founders).map(|life| life.host.clone()).collect();
        let all = join_all(hosts.into_iter().map(|host| {
            let found = found.clone();
            async move { host.found(found).await }
        }));
        let results = self.sim.run_until(ms(1_000), all).ok_or("a group takes a second to be founded")?;
        match results.into_iter().find_map(Result::err) {
            Some(error) => Err(format!("group {} cannot be founded: {error}", group.id)),
            None => Ok(()),
        }
    }

    /// Ends the life at a place at once, with everything it held.
    pub(super) fn kill(&mut self, place: usize) {
        if let Some(life) = self.places[place].life.take() {
            self.sim.kill(&life.env);
            self.views.retain(|(of, _), _| *of != place);
        }
    }

    /// Stops or continues the node at a place.
    pub(super) fn set_paused(&mut self, place: usize, paused: bool) {
        if let Some(life) = &mut self.places[place].life
            && life.paused != paused
        {
            life.paused = paused;
            if paused { self.sim.pause(&life.env) } else { self.sim.resume(&life.env) }
        }
    }

    /// Lets all nodes go on, mends the network and the clocks.
    pub(super) fn mend(&mut self) {
        self.sim.heal();
        self.sim.set_net_config(NetConfig::default());
        for place in 0..self.places.len() {
            self.set_paused(place, false);
            match &self.places[place].life {
                Some(life) => self.sim.set_drift(&life.env, 0),
                None => self.start_node(place),
            }
        }
    }

    /// The nodes that live.
    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.places.iter().filter_map(|place| place.life.as_ref())
    }

    /// Where a node lives; none if it is dead.
    pub(super) fn place_of(&self, node: NodeId) -> Option<usize> {
        let here = |place: &Place| place.life.as_ref().is_some_and(|life| life.env.node() == node);
        self.places.iter().position(here)
    }

    /// Asks all members that can speak at this instant. What a paused node said last stands: it can do nothing.
    ///
    /// # Errors
    ///
    /// When a node does not answer at once.
    pub(super) fn look(&mut self) -> Result<Vec<Arc<Sighting>>, String> {
        let mut asked = Vec::new();
        for (place, Place { life, .. }) in self.places.iter().enumerate() {
            if let Some(life) = life.as_ref().filter(|life| !life.paused) {
                let (node, host) = (life.env.node(), life.host.clone());
                asked.push(async move { (place, node, host.statuses().await) });
            }
        }
        let answers = self.sim.run_until(Duration::ZERO, join_all(asked));
        let mut sightings = Vec::new();
        for (place, node, statuses) in answers.ok_or("a host does not say its statuses at once")? {
            self.views.retain(|(of, _), _| *of != place);
            for status in statuses {
                let sighting = Arc::new(Sighting { node, status });
                self.views.insert((place, sighting.status.group), sighting.clone());
                sightings.push(sighting);
            }
        }
        Ok(sightings)
    }

    /// What the members of a group on living nodes said last, with their places.
    pub(super) fn views(&self, group: u64) -> impl Iterator<Item = (usize, &Sighting)> {
        let of_group = move |((_, of), _): &(&(usize, GroupId), _)| *of == GroupId(group);
        self.views.iter().filter(of_group).map(|((place, _), sighting)| (*place, sighting.as_ref()))
    }

    /// The leader that serves in the highest term, on a node that is not paused.
    pub(super) fn leader(&self, group: u64) -> Option<(usize, &Sighting)> {
        let leads = |(place, sighting): &(usize, &Sighting)| {
            let awake = self.places[*place].life.as_ref().is_some_and(|life| !life.paused);
            awake && sighting.status.role == Role::Leader && sighting.status.ready
        };
        self.views(group).filter(leads).max_by_key(|(_, sighting)| sighting.status.term)
    }

    /// The members of a group whose state is there, except on one node.
    pub(super) fn members_left(&self, group: u64, without: Option<usize>) -> BTreeSet<MemberId> {
        let left = self.views(group).filter(|(place, _)| Some(*place) != without);
        left.filter(|(_, sighting)| !sighting.status.data.is_empty())
            .map(|(_, sighting)| sighting.status.member)
            .collect()
    }
}

/// The voters that a member acts by.
pub(super) fn voters_of(sighting: &Sighting) -> BTreeSet<MemberId> {
    let voters = sighting.status.members.iter().filter(|member| member.voter);
    voters.map(|member| member.member).collect()
}
