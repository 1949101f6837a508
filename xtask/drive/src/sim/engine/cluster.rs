//! The nodes of one seed: each place in the network holds one life of a node at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rafted_value::env::Env;
use rafted_value::sim::{NetConfig, Sim, SimEnv, Watching};
use rafted_value::{Found, GroupId, Host, HostConfig, MemberId, NodeId, Registry, Role, StoreError};

use super::directory::Directory;
use super::invariants::Sighting;
use super::lists::Lists;
use super::plan::{GroupPlan, Plan, ms};
use super::storage::{End, Storage};
use super::witness::Witness;
use crate::sim::sabotage::Sabotage;
use crate::sim::steps::Steps;

/// A node must have read its disk within this time.
const OPEN_MAX: Duration = Duration::from_secs(20);

/// All nodes, and what their members said of themselves last.
pub(super) struct Cluster {
    pub(super) sim: Sim,
    pub(super) places: Vec<Place>,
    pub(super) directory: Arc<Directory>,
    /// What its members do, checked at every step.
    pub(super) steps: Steps,
    _watching: Watching,
    host_config: HostConfig,
    registry: Registry,
    /// What the node at the first place knows.
    first_registry: Registry,
    views: BTreeMap<(usize, GroupId), Arc<Sighting>>,
    /// Members that wait on the disks of dead nodes, with all they ever acknowledged.
    asleep: BTreeMap<(usize, GroupId), Arc<Sighting>>,
}

/// A place in the network.
pub(super) struct Place {
    pub(super) address: String,
    /// What outlives its nodes; without it, each life is another node.
    pub(super) storage: Option<Storage>,
    pub(super) life: Option<Life>,
}

/// One life of one node.
pub(super) struct Life {
    pub(super) env: Arc<SimEnv>,
    pub(super) host: Host,
    pub(super) paused: bool,
}

/// The data types of a plan's groups.
fn registry(plan: &Plan, witness: &Arc<Witness>, slips: bool) -> Registry {
    let groups = plan.groups.iter().map(|group| group.id);
    groups.fold(Registry::new(), |registry, group| {
        let witness = witness.clone();
        registry.with_raw(Lists::name(group), move || {
            let lists = Lists::new(group, witness.clone());
            Box::new(if slips { lists.slipping() } else { lists })
        })
    })
}

impl Cluster {
    /// The nodes of a plan, which know the data types of its groups.
    ///
    /// # Errors
    ///
    /// When a node does not start.
    pub(super) fn start(sim: Sim, plan: &Plan, witness: &Arc<Witness>) -> Result<Self, String> {
        let registry = registry(plan, witness, false);
        let first_registry = self::registry(plan, witness, plan.sabotage == Some(Sabotage::OneMemberSlips));
        let place = |index| {
            let storage = plan.disks.as_ref().map(|disks| Storage::new(&sim, disks));
            Place { address: format!("sim:{index}"), storage, life: None }
        };
        let places: Vec<Place> = (0..plan.nodes).map(place).collect();
        let (views, asleep, host_config) = (BTreeMap::new(), BTreeMap::new(), plan.host.clone());
        let (directory, steps) = (Arc::default(), Steps::default());
        let mut cluster = Self {
            sim,
            places,
            directory,
            _watching: steps.watch(),
            steps,
            host_config,
            registry,
            first_registry,
            views,
            asleep,
        };
        for place in 0..cluster.places.len() {
            cluster.start_node(place)?;
        }
        Ok(cluster)
    }

    /// Starts a node at a place that is free: a new, empty one, or the one whose disk is there.
    ///
    /// # Errors
    ///
    /// When its disk cannot be opened.
    pub(super) fn start_node(&mut self, place: usize) -> Result<(), String> {
        let (env, open) = self.begin_life(place);
        let name = format!("node-{place}");
        let host =
            self.sim.run_until(OPEN_MAX, open).ok_or(format!("{name} does not start in {OPEN_MAX:?}"))?;
        let host = host.map_err(|error| format!("{name} does not start: {error}"))?;
        self.places[place].life = Some(Life { env, host, paused: false });
        self.asleep.retain(|(of, _), _| *of != place);
        self.look().map(drop)
    }

    /// Starts a node on the disk of a free place, and ends it after `length` or when it has just read its disk.
    ///
    /// # Errors
    ///
    /// When its disk cannot be opened.
    pub(super) fn start_in_vain(&mut self, place: usize, length: Duration, end: End) -> Result<(), String> {
        let (env, open) = self.begin_life(place);
        let opened = self.sim.run_until(length, open);
        self.end_life(place, &env, end);
        match opened {
            Some(Err(error)) => Err(format!("node-{place} does not start: {error}")),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Whether all members that wait on the disk of a place would still be there after such an end.
    pub(super) fn wakes_after(&self, place: usize, end: End) -> bool {
        let asleep = self.asleep.iter().filter(|((of, _), _)| *of == place);
        asleep.map(|(_, member)| member.status.durability).all(|durability| end.spares(durability))
    }

    /// A node at a place, and the opening of its disk.
    fn begin_life(
        &self,
        place: usize,
    ) -> (Arc<SimEnv>, impl Future<Output = Result<Host, StoreError>> + use<>) {
        let (address, name) = (self.places[place].address.clone(), format!("node-{place}"));
        let env = match &self.places[place].storage {
            Some(storage) => self.sim.start_node_on(storage.node, storage.disk.disk(), &name, &address),
            None => self.sim.start_node(&name, &address),
        };
        self.steps.node_begins(&env);
        self.directory.enter(env.node(), &address);
        for (node, address) in self.directory.all() {
            env.transport().set_address(node, &address);
        }
        for life in self.lives() {
            life.env.transport().set_address(env.node(), &address);
        }
        let registry = if place == 0 { &self.first_registry } else { &self.registry };
        let open = Host::open(env.clone(), self.host_config.clone(), registry.clone());
        (env, open)
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

    /// Ends the life at a place at once, with everything it held, except what its disk keeps.
    pub(super) fn kill(&mut self, place: usize, end: End) {
        let Some(life) = self.places[place].life.take() else { return };
        let keeps = self.places[place].storage.is_some();
        for ((_, group), member) in self.views.iter().filter(|((of, _), _)| *of == place) {
            if keeps && end.spares(member.status.durability) {
                self.asleep.insert((place, *group), member.clone());
            }
        }
        self.views.retain(|(of, _), _| *of != place);
        self.end_life(place, &life.env, end);
    }

    fn end_life(&self, place: usize, env: &SimEnv, end: End) {
        self.sim.kill(env);
        self.steps.node_ends(env.node());
        if let Some(Storage { disk, .. }) = &self.places[place].storage {
            if end == End::Power { disk.crash() } else { disk.kill() }
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
    ///
    /// # Errors
    ///
    /// When a node does not start.
    pub(super) fn mend(&mut self, network: &NetConfig) -> Result<(), String> {
        self.sim.heal();
        self.sim.set_net_config(network.clone());
        for place in 0..self.places.len() {
            self.set_paused(place, false);
            match &self.places[place].life {
                Some(life) => self.sim.set_drift(&life.env, 0),
                None => self.start_node(place)?,
            }
        }
        Ok(())
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

    /// The members of a group whose state is there, on nodes that live or on disks, once the nodes at `places` have
    /// ended.
    pub(super) fn members_left(&self, group: u64, places: &[usize], end: End) -> BTreeSet<MemberId> {
        let stays = |place: usize, sighting: &Sighting| {
            let kept = self.places[place].storage.is_some() && end.spares(sighting.status.durability);
            !sighting.status.data.is_empty() && (kept || !places.contains(&place))
        };
        let left = self.views(group).filter(|(place, sighting)| stays(*place, sighting));
        left.map(|(_, sighting)| sighting).chain(self.asleep(group)).map(|of| of.status.member).collect()
    }

    /// What the members of a group that wait on disks said last.
    pub(super) fn asleep(&self, group: u64) -> impl Iterator<Item = &Sighting> {
        let of_group = self.asleep.iter().filter(move |((_, of), _)| *of == GroupId(group));
        of_group.map(|(_, sighting)| sighting.as_ref())
    }

    /// Whether a member is where its group believes it to be, as far as can be seen.
    pub(super) fn is_there(&self, group: u64, node: NodeId, member: MemberId) -> bool {
        let Some(place) = self.place_of(node) else { return false };
        let view = self.views.get(&(place, GroupId(group)));
        view.is_some_and(|sighting| sighting.status.member == member)
    }
}

impl Drop for Cluster {
    /// The clock of a disk is the simulation's, whose nodes hold the disk.
    fn drop(&mut self) {
        for storage in self.places.iter().filter_map(|place| place.storage.as_ref()) {
            storage.disk.set_sync_latency(None);
        }
    }
}

/// The voters that a member acts by.
pub(super) fn voters_of(sighting: &Sighting) -> BTreeSet<MemberId> {
    let voters = sighting.status.members.iter().filter(|member| member.voter);
    voters.map(|member| member.member).collect()
}
