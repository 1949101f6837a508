//! Simulated nodes that run the whole stack, and how whole they are.

use std::sync::Arc;
use std::time::Duration;

use dist_agent::{AgentTypes, DistAgent, DistAgentConfig, QuotaLimit};
use parking_lot::Mutex;
use rafted_value::GroupStatus;
use rafted_value::env::Env;
use rafted_value::sim::{Sim, SimEnv};

use super::ledger::Ledger;

/// The quota of all agents.
pub(super) const QUOTA: &str = "simulated";
/// Members of each group, on as many nodes.
const REPLICAS: usize = 3;

/// One place in the cluster: an address, and whoever lives there now.
pub(super) struct Place {
    pub(super) env: Arc<SimEnv>,
    pub(super) agents: Arc<Mutex<Option<DistAgent>>>,
    pub(super) alive: bool,
}

/// All places.
pub(super) struct World {
    pub(super) sim: Sim,
    pub(super) places: Vec<Place>,
    config: DistAgentConfig,
}

pub(super) fn address(place: usize) -> String {
    format!("sim:{place}")
}

impl World {
    /// `nodes` nodes that start to look for each other.
    pub(super) fn start(sim: Sim, nodes: usize, shards: u32, call_timeout: Duration) -> Self {
        let mut config = DistAgentConfig::default();
        config.fleet.seeds = (0..nodes).map(address).collect();
        config.fleet.bootstrap_expect = nodes;
        // The default follows the machine, which must not decide how a seed goes.
        config.fleet.host.loops = 2;
        config.agents.shards = shards;
        config.call.timeout = call_timeout;
        let mut world = Self { sim, places: Vec::new(), config };
        for place in 0..nodes {
            let life = world.begin_life(place);
            world.places.push(life);
        }
        world
    }

    fn begin_life(&self, place: usize) -> Place {
        let env = self.sim.start_node(&format!("node-{place}"), &address(place));
        let agents = Arc::new(Mutex::new(None));
        let (slot, config, door) = (agents.clone(), self.config.clone(), env.clone());
        drop(self.sim.spawn_on(&env, async move {
            let types = AgentTypes::new().with::<Ledger>();
            // A node that is not let in says why in its trace; that it never hosts anything is noticed.
            *slot.lock() = DistAgent::start(door, config, types).await.ok();
        }));
        Place { env, agents, alive: true }
    }

    pub(super) fn kill(&mut self, place: usize) {
        self.sim.kill(&self.places[place].env);
        self.places[place].alive = false;
        *self.places[place].agents.lock() = None;
    }

    /// A new node with nothing in its memory starts where the dead one was.
    pub(super) fn restart(&mut self, place: usize) {
        self.places[place] = self.begin_life(place);
    }

    /// A client of its own node.
    pub(super) fn client(&self, name: &str) -> (Arc<SimEnv>, Arc<Mutex<Option<DistAgent>>>) {
        let env = self.sim.start_node(name, &format!("sim:{name}"));
        let client = Arc::new(Mutex::new(None));
        let (slot, config, door) = (client.clone(), self.config.clone(), env.clone());
        drop(self.sim.spawn_on(&env, async move {
            let Ok(client) = DistAgent::connect(door, config).await else { return };
            if client.put_quota(QUOTA, QuotaLimit::Unlimited).await.is_ok() {
                *slot.lock() = Some(client);
            }
        }));
        (env, client)
    }

    /// What all living nodes say of their members.
    pub(super) fn statuses(&self) -> Result<Vec<(usize, GroupStatus)>, String> {
        let mut all = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            let agents = place.agents.lock().clone();
            let Some(agents) = agents.filter(|_| place.alive) else { continue };
            let host = agents.fleet().host().ok_or("a node has no host")?.clone();
            let asked = self.sim.run_until(Duration::from_secs(5), async move { host.statuses().await });
            // A paused node does not answer.
            all.extend(asked.unwrap_or_default().into_iter().map(|status| (index, status)));
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
            if !place.alive || place.agents.lock().is_none() {
                return Err(format!("node {index} is not part of the cluster"));
            }
        }
        let statuses = self.statuses()?;
        let agents = self.places[0].agents.lock().clone().ok_or("node 0 is gone")?;
        let view = agents.fleet().cluster();
        let living: Vec<_> = self.places.iter().map(|place| place.env.transport().local().node).collect();
        if living.iter().any(|node| !view.nodes().contains_key(node)) || view.nodes().len() != living.len() {
            return Err(format!("the cluster lists {} nodes, not those that live", view.nodes().len()));
        }
        let groups = view.groups().values().map(|entry| entry.id);
        for group in groups.chain([dist_agent::raft_kv::raft_fleet::CLUSTER_GROUP]) {
            let leads =
                |(_, status): &&(usize, GroupStatus)| status.group == group && status.ready && status.leased;
            let (_, leader) =
                statuses.iter().find(leads).ok_or_else(|| format!("{group} has no leader that serves"))?;
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
