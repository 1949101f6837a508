//! Simulated nodes that run the whole stack, and how whole they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dist_agent::{AgentTypes, DistAgent, DistAgentConfig, QuotaLimit, StartError};
use parking_lot::Mutex;
use rafted_value::env::Env;
use rafted_value::sim::{Sim, SimDisk, SimEnv, SimRng, Watching, WatchingShown};
use rafted_value::{GroupStatus, NodeId, node_on};

use super::ledger::{Ledger, Slipping};
use super::load::QUOTA;
use super::next_build::NextLedger;
use super::plan::Plan;
use super::shown::Shown;
use super::storm;
use crate::sim::leaders::serving_leader;
use crate::sim::limits::Limits;
use crate::sim::sabotage::Sabotage;
use crate::sim::steps::{Scene, Steps};
use crate::sim::tally::Tally;

/// Members of each group, on as many nodes.
const REPLICAS: usize = 3;
/// Nodes say their statuses within this time, or are paused.
const STATUS_MAX: Duration = Duration::from_millis(10);

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Its process.
    Process,
    /// Its machine, and with it what was written and not synced.
    Power,
}

/// Of which build of the program a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Build {
    Old,
    /// One that is broken on purpose.
    Broken,
    Next,
}

/// One place in the cluster: an address, and whoever lives there now.
pub(super) struct Place {
    pub(super) env: Arc<SimEnv>,
    pub(super) agents: Arc<Mutex<Option<DistAgent>>>,
    /// Whether it was told that its build does not fit.
    refused: Arc<AtomicBool>,
    /// Whether it speaks another wire version than the others.
    pub(super) stranger: bool,
    pub(super) alive: bool,
    pub(super) paused: bool,
    /// How far its wall clock is off.
    pub(super) wall_offset_ms: i64,
    /// What outlives its nodes.
    pub(super) disk: Option<SimDisk>,
}

/// All places.
pub(super) struct World {
    pub(super) sim: Sim,
    pub(super) places: Vec<Place>,
    /// What all members do, checked at every step.
    pub(super) steps: Steps,
    /// What all shards come to.
    pub(super) shown: Shown,
    _watching: (Watching, WatchingShown),
    config: DistAgentConfig,
    /// How long a sync takes at most, where there are disks.
    sync_max: Option<Duration>,
    /// How many agents there may be in the quota that is too small.
    quota: u32,
    /// Whether the node at the first place is broken on purpose.
    slips: bool,
    /// Of a hundred lives, so many are of the next build.
    next_builds: u64,
    rng: SimRng,
}

pub(super) fn address(place: usize) -> String {
    format!("sim:{place}")
}

impl World {
    /// The nodes of a plan, which start to look for each other.
    pub(super) fn start(sim: Sim, plan: &Plan, limits: &Limits, call_timeout: Duration) -> Self {
        let mut config = DistAgentConfig::default();
        config.fleet.seeds = (0..plan.nodes).map(address).collect();
        config.fleet.bootstrap_expect = plan.nodes;
        // The default follows the machine, which must not decide how a seed goes.
        config.fleet.host.loops = 2;
        config.agents.shards = plan.shards;
        config.fleet.host.divergence_check_commands = plan.compared_every;
        config.call.timeout = call_timeout;
        config.quota_place = plan.place_max;
        config.quota_lease_share = plan.lease_share;
        if limits.breaks(Sabotage::ClocksBeyondTheMargin) {
            // Nothing but the promise guards the lease, and nothing covers the drift.
            let group = &mut config.agents.group;
            group.clock_drift_margin_ms = 0;
            group.election_timeout_min_ms = group.promise_ms.max(2 * group.heartbeat_ms);
        }
        if let Some(moves) = &plan.moves {
            config.agents.split_merge = moves.policy.clone();
            config.kv.stats_interval = Duration::from_secs(1);
            config.kv.move_chunk_bytes = moves.chunk_bytes;
            config.kv.move_chunk_pause = moves.chunk_pause;
            config.kv.move_tail_bytes = moves.tail_bytes;
            config.kv.move_rounds_max = moves.rounds_max;
            config.kv.move_step_timeout = moves.step_timeout;
        }
        let (rng, steps, shown) = (sim.rng(), Steps::default(), Shown::default());
        let mut world = Self {
            sim,
            places: Vec::new(),
            _watching: (steps.watch(), shown.watch(&steps)),
            steps,
            shown,
            config,
            sync_max: plan.disks,
            quota: plan.quota,
            slips: limits.breaks(Sabotage::OneMemberSlips),
            next_builds: plan.next_builds.unwrap_or(0),
            rng,
        };
        for place in 0..plan.nodes {
            let disk = world.new_disk();
            // A cluster begins with one build: nodes of an old one would be refused beside nodes of the next.
            let next = plan.next_builds.is_some() && plan.begins_with_next;
            let build = if next { Build::Next } else { world.broken_or_old(place) };
            let life = world.begin_life(place, disk, build);
            world.places.push(life);
        }
        world
    }

    /// What goes on from now on.
    pub(super) fn set_scene(&self, scene: Scene) {
        self.steps.set_scene(scene);
        self.shown.set_scene(scene);
    }

    /// # Errors
    ///
    /// The first thing that did not hold.
    pub(super) fn check(&self) -> Result<(), String> {
        let strange = |place: &Place| place.stranger && place.agents.lock().is_some();
        if self.places.iter().any(strange) {
            return Err("a node of another wire version is part of the cluster".into());
        }
        self.steps.check()?;
        self.shown.check()
    }

    /// Adds what was seen.
    pub(super) fn read_out(&self, tally: &mut Tally) {
        self.steps.read_out(tally);
        self.shown.read_out(tally);
    }

    /// The zone of all nodes.
    pub(super) fn zone(&self) -> String {
        self.config.fleet.zone.clone()
    }

    /// An empty disk, where nodes have any.
    fn new_disk(&self) -> Option<SimDisk> {
        let sync_max = self.sync_max?;
        let (disk, world, rng) = (SimDisk::new(self.sim.rng()), self.sim.clone(), self.sim.rng());
        let rng = Mutex::new(rng);
        disk.set_sync_latency(Some(Arc::new(move || {
            let wait = rng.lock().duration(Duration::ZERO, sync_max);
            world.sleep(wait)
        })));
        Some(disk)
    }

    fn draw_build(&mut self, place: usize) -> Build {
        if self.rng.below(100) < self.next_builds { Build::Next } else { self.broken_or_old(place) }
    }

    fn broken_or_old(&self, place: usize) -> Build {
        if self.slips && place == 0 { Build::Broken } else { Build::Old }
    }

    fn begin_life(&mut self, place: usize, disk: Option<SimDisk>, build: Build) -> Place {
        let (name, address) = (format!("node-{place}"), address(place));
        let env = match &disk {
            Some(disk) => {
                // A disk that does not say whose it is refuses its node later, and that is noticed.
                let known = node_on(disk.disk().as_ref()).ok().flatten();
                let node = known.unwrap_or_else(|| NodeId(self.rng.next_u64().max(1)));
                self.sim.start_node_on(node, disk.disk(), &name, &address)
            }
            None => self.sim.start_node(&name, &address),
        };
        self.steps.node_begins(&env);
        let (agents, refused) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (slot, is_refused, config, door) =
            (agents.clone(), refused.clone(), self.config.clone(), env.clone());
        drop(self.sim.spawn_on(&env, async move {
            let types = AgentTypes::new();
            let types = match build {
                Build::Old => types.with::<Ledger>(),
                Build::Broken => types.with::<Slipping>(),
                Build::Next => types.with::<NextLedger>(),
            };
            match DistAgent::start(door, config, types).await {
                Ok(agents) => *slot.lock() = Some(agents),
                Err(StartError::Build(_)) => is_refused.store(true, Ordering::Relaxed),
                // A node that is not let in says why in its trace; that it never hosts anything is noticed.
                Err(_) => {}
            }
        }));
        Place { env, agents, refused, stranger: false, alive: true, paused: false, wall_offset_ms: 0, disk }
    }

    /// Ends the node at a place at once, with everything it held, except what its disk keeps.
    pub(super) fn kill(&mut self, place: usize, end: End) {
        let Place { env, agents, alive, disk, .. } = &mut self.places[place];
        if !std::mem::replace(alive, false) {
            return;
        }
        self.sim.kill(env);
        self.steps.node_ends(env.node());
        *agents.lock() = None;
        if let Some(disk) = disk {
            if end == End::Power { disk.crash() } else { disk.kill() }
        }
    }

    /// Takes everything away that the disk at a free place has.
    pub(super) fn wipe(&mut self, place: usize) {
        if let Some(old) = self.places[place].disk.take() {
            old.set_sync_latency(None);
            self.places[place].disk = self.new_disk();
        }
    }

    /// A node starts at a place that is free: the one whose disk is there, else a new and empty one.
    pub(super) fn restart(&mut self, place: usize) {
        let build = self.draw_build(place);
        self.restart_as(place, build);
    }

    /// The same as a node of this build.
    pub(super) fn restart_as(&mut self, place: usize, build: Build) {
        if !self.places[place].alive {
            let disk = self.places[place].disk.take();
            self.places[place] = self.begin_life(place, disk, build);
        }
    }

    /// A node that speaks another version of the wire format starts at a place that is free.
    pub(super) fn restart_speaking(&mut self, place: usize, wire_version: u16) {
        self.restart(place);
        self.sim.speak(&self.places[place].env, wire_version);
        self.places[place].stranger = true;
    }

    /// The places of nodes that were told that their build does not fit.
    pub(super) fn refused(&self) -> Vec<usize> {
        let refused = |place: &Place| place.alive && !place.paused && place.refused.load(Ordering::Relaxed);
        let places = self.places.iter().enumerate();
        places.filter(|(_, place)| refused(place)).map(|(index, _)| index).collect()
    }

    /// Stops or continues the node at a place.
    pub(super) fn set_paused(&mut self, place: usize, paused: bool) {
        let Place { env, alive, paused: before, .. } = &mut self.places[place];
        if *alive && std::mem::replace(before, paused) != paused {
            if paused { self.sim.pause(env) } else { self.sim.resume(env) }
        }
    }

    /// A client of its own node.
    pub(super) fn client(&self, name: &str) -> (Arc<SimEnv>, Arc<Mutex<Option<DistAgent>>>) {
        let env = self.sim.start_node(name, &format!("sim:{name}"));
        let client = Arc::new(Mutex::new(None));
        let (slot, config, door, limit) = (client.clone(), self.config.clone(), env.clone(), self.quota);
        drop(self.sim.spawn_on(&env, async move {
            let Ok(client) = DistAgent::connect(door, config).await else { return };
            let storm = client.put_quota(storm::QUOTA, u64::from(limit)).await;
            if client.put_quota(QUOTA, QuotaLimit::Unlimited).await.is_ok() && storm.is_ok() {
                *slot.lock() = Some(client);
            }
        }));
        (env, client)
    }

    /// What all nodes that can speak say of their members.
    fn statuses(&self) -> Result<Vec<GroupStatus>, String> {
        let mut all = Vec::new();
        for place in &self.places {
            let agents = place.agents.lock().clone();
            let Some(agents) = agents.filter(|_| place.alive && !place.paused) else { continue };
            let host = agents.fleet().host().ok_or("a node has no host")?.clone();
            let asked = self.sim.run_until(STATUS_MAX, async move { host.statuses().await });
            all.extend(asked.unwrap_or_default());
        }
        Ok(all)
    }

    /// Whether every group has all its members, alive and caught up, so that one of them may be lost.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub(super) fn is_whole(&self) -> Result<(), String> {
        for (index, place) in self.places.iter().enumerate() {
            if !place.alive || place.paused || place.agents.lock().is_none() {
                return Err(format!("node {index} is not part of the cluster"));
            }
        }
        let statuses = self.statuses()?;
        if let Some(fenced) = statuses.iter().find(|status| status.fenced.is_some()) {
            return Err(format!("{} is fenced on a node: {:?}", fenced.group, fenced.fenced));
        }
        let agents = self.places[0].agents.lock().clone().ok_or("node 0 is gone")?;
        let view = agents.fleet().cluster();
        let living: Vec<_> = self.places.iter().map(|place| place.env.transport().local().node).collect();
        if living.iter().any(|node| !view.nodes().contains_key(node)) || view.nodes().len() != living.len() {
            return Err(format!("the cluster lists {} nodes, not those that live", view.nodes().len()));
        }
        let groups = view.groups().values().map(|entry| entry.id);
        for group in groups.chain([dist_agent::raft_kv::raft_fleet::CLUSTER_GROUP]) {
            let leader = serving_leader(&statuses, group)?;
            let whole = leader.members.iter().filter(|member| {
                let caught_up = member.matched.is_some_and(|matched| matched + 64 > leader.last_index);
                member.voter && caught_up && living.contains(&member.node)
            });
            let (whole, voters) =
                (whole.count(), leader.members.iter().filter(|member| member.voter).count());
            if whole < REPLICAS.min(self.places.len()) || whole != voters {
                return Err(format!("{whole} of {voters} voters of {group} are whole"));
            }
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
