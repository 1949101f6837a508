//! Simulated nodes of a fleet, with or without disks, and how whole they are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dist_agent::raft_kv::raft_fleet::{
    CLUSTER_GROUP, Fleet, FleetConfig, GroupId, GroupState, GroupStatus, HostConfig, NodeId, Registry,
};
use parking_lot::Mutex;
use rafted_value::env::{Env, sleep};
use rafted_value::node_on;
use rafted_value::sim::{Sim, SimDisk, SimEnv, Watching};

use super::load::Counter;
use crate::sim::leaders::serving_leader;
use crate::sim::steps::Steps;

/// Members of each group, where there are as many nodes.
pub(super) const REPLICAS: usize = 3;

/// One place in the cluster: an address, perhaps a disk, and whoever lives there now.
pub(super) struct Place {
    pub(super) env: Arc<SimEnv>,
    pub(super) fleet: Arc<Mutex<Option<Fleet>>>,
    pub(super) alive: bool,
    disk: Option<SimDisk>,
}

/// All places.
pub(super) struct World {
    pub(super) sim: Sim,
    pub(super) places: Vec<Place>,
    /// What all members do, checked at every step.
    pub(super) steps: Steps,
    _watching: Watching,
    config: FleetConfig,
    durable: bool,
}

pub(super) fn address(place: usize) -> String {
    format!("sim:{place}")
}

impl World {
    /// `nodes` nodes that start to look for each other.
    pub(super) fn start(sim: Sim, nodes: usize, durable: bool) -> Self {
        let config = FleetConfig {
            seeds: (0..nodes).map(address).collect(),
            bootstrap_expect: nodes,
            // The default follows the machine, which must not decide how a seed goes.
            host: HostConfig { loops: 2, ..HostConfig::default() },
            failure_window: Duration::from_secs(15),
            add_group_wait: Duration::from_secs(60),
            ..FleetConfig::default()
        };
        let steps = Steps::default();
        let mut world = Self { sim, places: Vec::new(), _watching: steps.watch(), steps, config, durable };
        (0..nodes).for_each(|_| world.add_place());
        world
    }

    /// One more node begins to look for the cluster.
    pub(super) fn add_place(&mut self) {
        let disk = self.durable.then(|| SimDisk::new(self.sim.rng()));
        let life = self.begin_life(self.places.len(), disk);
        self.places.push(life);
    }

    fn begin_life(&self, place: usize, disk: Option<SimDisk>) -> Place {
        let (name, address) = (format!("node-{place}"), address(place));
        let env = match &disk {
            None => self.sim.start_node(&name, &address),
            Some(disk) => {
                let node = node_on(disk.disk().as_ref()).expect("the disk is whole");
                let node = node.unwrap_or_else(|| NodeId(self.sim.rng().next_u64().max(1)));
                let env = self.sim.start_node_on(node, disk.disk(), &name, &address);
                let clock = env.clone();
                let latency = Duration::from_micros(300);
                disk.set_sync_latency(Some(Arc::new(move || sleep(clock.as_ref(), latency))));
                env
            }
        };
        self.steps.node_begins(&env);
        let fleet = Arc::new(Mutex::new(None));
        let config = FleetConfig { zone: format!("zone-{}", place % 3), ..self.config.clone() };
        let (slot, door) = (fleet.clone(), env.clone());
        drop(self.sim.spawn_on(&env, async move {
            // A node that is not let in says why in its trace; that it never hosts anything is noticed.
            *slot.lock() = Fleet::start(door, config, Registry::new().with::<Counter>()).await.ok();
        }));
        Place { env, fleet, alive: true, disk }
    }

    /// The machine stops: what its disk has not synced may be gone.
    pub(super) fn kill(&mut self, place: usize) {
        let place = &mut self.places[place];
        self.sim.kill(&place.env);
        self.steps.node_ends(place.env.node());
        place.alive = false;
        *place.fleet.lock() = None;
        if let Some(disk) = &place.disk {
            disk.kill();
            disk.crash();
        }
    }

    /// A node starts where the dead one was, on its disk if it has one.
    pub(super) fn restart(&mut self, place: usize) {
        let disk = self.places[place].disk.take();
        self.places[place] = self.begin_life(place, disk);
    }

    /// The fleet of a place, where a node lives there and is part of the cluster.
    pub(super) fn fleet(&self, place: usize) -> Option<Fleet> {
        let place = self.places.get(place).filter(|place| place.alive)?;
        place.fleet.lock().clone()
    }

    /// Whether a majority of the places that have ever been is alive, this one not counted.
    pub(super) fn can_spare(&self, place: usize) -> bool {
        let others = self.places.iter().enumerate().filter(|(index, _)| *index != place);
        others.filter(|(_, place)| place.alive).count() > self.places.len() / 2
    }

    /// A client of its own node.
    pub(super) fn client(&self, name: &str) -> (Arc<SimEnv>, Arc<Mutex<Option<Fleet>>>) {
        let env = self.sim.start_node(name, &format!("sim:{name}"));
        let client = Arc::new(Mutex::new(None));
        let (slot, config, door) = (client.clone(), self.config.clone(), env.clone());
        drop(self.sim.spawn_on(&env, async move {
            *slot.lock() = Fleet::connect(door, config).await.ok();
        }));
        (env, client)
    }

    /// What all living nodes say of their members.
    fn statuses(&self) -> Vec<GroupStatus> {
        let mut all = Vec::new();
        for fleet in (0..self.places.len()).filter_map(|place| self.fleet(place)) {
            let Some(host) = fleet.host().cloned() else { continue };
            let asked = self.sim.run_until(Duration::from_secs(5), async move { host.statuses().await });
            // A paused node does not answer.
            all.extend(asked.unwrap_or_default());
        }
        all
    }

    /// Whether every group has all its members at their places, alive and caught up, and nothing else is left.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub(super) fn is_whole(&self) -> Result<(), String> {
        for place in 0..self.places.len() {
            if self.fleet(place).is_none() {
                return Err(format!("node {place} is not part of the cluster"));
            }
        }
        let statuses = self.statuses();
        let view = self.fleet(0).ok_or("node 0 is gone")?.cluster();
        let living: BTreeSet<NodeId> =
            self.places.iter().map(|place| place.env.transport().local().node).collect();
        let listed: BTreeSet<NodeId> = view.nodes().keys().copied().collect();
        if living != listed {
            return Err(format!("the cluster lists {listed:?}, and {living:?} live"));
        }
        if !view.removed().is_empty() {
            return Err(format!("{} removed groups are not cleaned up", view.removed().len()));
        }
        self.check(&statuses, CLUSTER_GROUP, &view.desired_of_cluster_group())?;
        for (name, entry) in view.groups() {
            if entry.state != GroupState::Running {
                return Err(format!("group {name} is still being founded"));
            }
            self.check(&statuses, entry.id, &view.desired(name, entry.replicas))?;
        }
        let known =
            |group: GroupId| group == CLUSTER_GROUP || view.groups().values().any(|entry| entry.id == group);
        match statuses.iter().find(|status| !known(status.group)) {
            Some(stray) => Err(format!("a member of group {} is left, which is not listed", stray.group)),
            None => Ok(()),
        }
    }

    fn check(&self, statuses: &[GroupStatus], group: GroupId, desired: &[NodeId]) -> Result<(), String> {
        let leader = serving_leader(statuses, group)?;
        let caught_up = leader.members.iter().filter(|member| {
            let near = member.matched.is_some_and(|matched| matched + 64 > leader.last_index);
            member.voter && near && desired.contains(&member.node)
        });
        if caught_up.count() != desired.len() || leader.members.len() != desired.len() {
            return Err(format!("{group} has the members {:?} and should be on {desired:?}", leader.members));
        }
        if leader.leader != desired.first().copied() {
            return Err(format!("{group} is led on {:?} and should be on {desired:?}", leader.leader));
        }
        Ok(())
    }
}

impl Drop for World {
    /// The clock of a disk is the simulation's, whose nodes hold the disk.
    fn drop(&mut self) {
        for disk in self.places.iter().filter_map(|place| place.disk.as_ref()) {
            disk.set_sync_latency(None);
        }
    }
}
