//! The scenario of raft-fleet: three to eight nodes that come, die, and are drained, while groups are added and removed and
//! every group is counted up; in the end all is at its place, and every count is right.

mod again;
mod load;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dist_agent::raft_kv::raft_fleet::{Data, Fleet, FleetError, GroupConfig, GroupName, Presence};
use parking_lot::Mutex;
use rafted_value::sim::{ClockConfig, NetConfig, Planted, Sim, SimEnv, SimRng};

use self::load::{CALL_TIMEOUT, Counted, Counter};
use self::world::{REPLICAS, World, address};
use super::limits::Limits;
use super::notes::Notes;
use super::sabotage::Sabotage;
use super::steps::Scene;

const SECOND: Duration = Duration::from_secs(1);
/// A cluster forms, and heals, within this time.
const WHOLE_MAX: Duration = Duration::from_secs(240);
/// Nodes at most.
const NODES_MAX: usize = 8;
/// Groups at most, those that were removed included.
const GROUPS_MAX: usize = 12;
/// So many starts on disks end before they are done.
const STARTS_CUT_SHORT: f64 = 0.25;

/// How the command line calls the kinds of faults, and what operators do.
pub(super) const KIND_NAMES: [&str; 9] =
    [KILL, PAUSE, CUT, WEATHER, "add-group", "remove-group", "add-node", "activate", "drain"];
const KILL: &str = "kill";
const PAUSE: &str = "pause";
const CUT: &str = "cut";
const WEATHER: &str = "weather";

/// Plays one seed.
///
/// # Errors
///
/// What did not hold.
pub(super) fn play(seed: u64, limits: &Limits, notes: &mut Notes) -> Result<(), String> {
    let sim = Sim::new(seed, NetConfig::default());
    let mut run = Run::start(sim.clone(), seed, limits, notes);
    let result = run.play();
    run.world.steps.read_out(&mut run.notes.tally);
    drop(run);
    notes.read_out(&sim);
    result
}

/// One seed.
struct Run<'a> {
    world: World,
    rng: SimRng,
    /// Decides which starts are cut short, and which groups come back.
    more: SimRng,
    durable: bool,
    client: Option<(Arc<SimEnv>, Fleet)>,
    groups: Vec<Arc<Counted>>,
    /// Operators' wishes that ended in an error other than those that a fault explains.
    surprises: Arc<Mutex<Vec<String>>>,
    /// Drains under way.
    drains: Arc<AtomicU64>,
    /// Groups that are removed and not added again yet.
    away: Arc<AtomicU64>,
    limits: Limits,
    _planted: Option<Planted>,
    notes: &'a mut Notes,
}

/// A drain that is under way, unless its node dies.
struct Draining(Arc<AtomicU64>);

impl Draining {
    fn begin(drains: Arc<AtomicU64>) -> Self {
        drains.fetch_add(1, Ordering::Relaxed);
        Self(drains)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Run<'a> {
    fn start(sim: Sim, seed: u64, limits: &Limits, notes: &'a mut Notes) -> Self {
        let (mut rng, more) = (sim.rng(), sim.named_rng("starts and returns"));
        sim.set_clock_config(ClockConfig { drift_ppm_max: 500, ..ClockConfig::default() });
        let planted = limits.planted();
        let nodes = 3 + rng.below(3) as usize;
        let durable = seed.is_multiple_of(2);
        notes.journal.note(Duration::ZERO, &format!("{nodes} nodes, on disks: {durable}"));
        let world = World::start(sim, nodes, durable);
        Self {
            world,
            rng,
            more,
            durable,
            client: None,
            groups: Vec::new(),
            surprises: Arc::default(),
            drains: Arc::default(),
            away: Arc::default(),
            limits: limits.clone(),
            _planted: planted,
            notes,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        self.until_whole().map_err(|why| format!("it does not form: {why}"))?;
        self.connect()?;
        (0..4).for_each(|_| self.add_group());
        // Until they are listed everywhere.
        self.world.sim.run_for(2 * SECOND);
        self.until_whole().map_err(|why| format!("groups are not founded: {why}"))?;
        let steps = 5 + self.rng.below(8);
        let begun = self.world.sim.elapsed();
        for _ in 0..steps {
            let calm = self.rng.duration(Duration::ZERO, SECOND);
            self.pass(calm);
            self.world.steps.check()?;
            let passed = self.world.sim.elapsed() - begun;
            if self.limits.time(passed) < passed {
                break;
            }
            if self.rng.chance(0.5) {
                self.change_something();
                // Into the middle of it.
                let begun = self.rng.duration(Duration::ZERO, SECOND / 2);
                self.pass(begun);
            }
            self.break_something();
        }
        self.notes.faults_time = self.world.sim.elapsed() - begun;
        self.mend();
        let mended = self.world.sim.elapsed();
        self.until_back()?;
        self.until_whole().map_err(|why| format!("it does not heal: {why}"))?;
        self.notes.slowest_heal = self.world.sim.elapsed() - mended;
        self.compare()?;
        self.world.steps.check()
    }

    /// Lets time pass in which nothing is cut.
    fn pass(&self, time: Duration) {
        self.pass_cut(time, false);
    }

    fn pass_cut(&self, time: Duration, cut: bool) {
        let dead = self.world.places.iter().any(|place| !place.alive);
        let draining = self.drains.load(Ordering::Relaxed) > 0;
        self.world.steps.set_scene(Scene { cut, dead, draining, ..Scene::default() });
        self.world.sim.run_for(time);
    }

    fn note(&mut self, what: &str) {
        self.notes.journal.note(self.world.sim.elapsed(), what);
    }

    fn until_whole(&mut self) -> Result<(), String> {
        let end = self.world.sim.elapsed() + WHOLE_MAX;
        loop {
            self.world.steps.check()?;
            match self.world.is_whole() {
                Ok(()) => return Ok(()),
                Err(why) if self.world.sim.elapsed() >= end => {
                    return Err(format!("after {WHOLE_MAX:?}: {why}"));
                }
                Err(_) => self.world.sim.run_for(SECOND / 10),
            }
        }
    }

    fn connect(&mut self) -> Result<(), String> {
        let (env, slot) = self.world.client("client");
        let end = self.world.sim.elapsed() + 30 * SECOND;
        loop {
            if let Some(client) = slot.lock().clone() {
                self.client = Some((env, client));
                return Ok(());
            }
            if self.world.sim.elapsed() >= end {
                return Err("a client does not connect to a healthy cluster".into());
            }
            self.world.sim.run_for(SECOND / 50);
        }
    }

    /// A node that is part of the cluster at the moment, perhaps paused or cut off.
    fn some_node(&mut self) -> Option<(usize, Fleet)> {
        let place = self.rng.below(self.world.places.len() as u64) as usize;
        Some((place, self.world.fleet(place)?))
    }

    /// Adds a group through a node, and counts it up from then on.
    fn add_group(&mut self) {
        let Some((place, fleet)) = self.some_node().filter(|_| self.groups.len() < GROUPS_MAX) else {
            return;
        };
        let name = GroupName::new(&format!("group-{}", self.groups.len())).expect("a short name");
        self.note(&format!("{name} is added through node {place}"));
        self.notes.tally.one("groups added");
        let counted = Counted::new(name.clone());
        self.groups.push(counted.clone());
        let (env, client) = self.client.clone().expect("it is connected before groups are added");
        let (surprises, removed) = (self.surprises.clone(), counted.clone());
        let work = load::work(env.clone(), client, counted.clone(), self.world.sim.rng());
        let door = self.world.places[place].env.clone();
        let add = async move {
            let added = fleet.add_group(name, Counter::NAME, REPLICAS, GroupConfig::default()).await;
            match added {
                Ok(_)
                | Err(
                    FleetError::Command(_)
                    | FleetError::Query(_)
                    | FleetError::NoLeader(_)
                    | FleetError::Timeout { .. },
                ) => (),
                // It may be removed while it is founded.
                Err(FleetError::NoSuchGroup { .. }) if removed.stop.load(Ordering::Relaxed) => (),
                Err(error) => surprises.lock().push(format!("adding a group: {error}")),
            }
        };
        let added = self.world.sim.spawn_on(&door, add);
        // Its client begins when the group is there; if the node dies before, nobody knows, and it may never be.
        drop(self.world.sim.spawn_on(&env, async move {
            let _ = added.await;
            work.await;
        }));
    }

    fn remove_group(&mut self) {
        let Some((place, fleet)) = self.some_node() else { return };
        let running: Vec<Arc<Counted>> =
            self.groups.iter().filter(|group| !group.stop.load(Ordering::Relaxed)).cloned().collect();
        if running.len() < 3 {
            return;
        }
        let counted = running[self.rng.below(running.len() as u64) as usize].clone();
        if self.durable && self.more.chance(again::COMES_BACK) {
            return self.remove_and_add(counted);
        }
        counted.stop.store(true, Ordering::Relaxed);
        let name = counted.name.clone();
        self.note(&format!("{name} is removed through node {place}"));
        self.notes.tally.one("groups removed");
        let door = self.world.places[place].env.clone();
        drop(self.world.sim.spawn_on(&door, async move { drop(fleet.remove_group(&name).await) }));
    }

    /// What an operator does; it goes on while something breaks.
    fn change_something(&mut self) {
        let draw = self.rng.below(5);
        let name = match draw {
            0 => "add-group",
            1 => "remove-group",
            2 if self.world.places.len() < NODES_MAX => "add-node",
            3 => "activate",
            _ => "drain",
        };
        if !self.limits.allow(name) {
            return;
        }
        match name {
            "add-group" => self.add_group(),
            "remove-group" => self.remove_group(),
            "add-node" => {
                self.note(&format!("node {} joins", self.world.places.len()));
                self.notes.tally.one("nodes added");
                self.world.add_place();
            }
            "activate" => self.activate_all(),
            _ => self.drain(),
        }
    }

    fn drain(&mut self) {
        let Some((place, fleet)) = self.some_node() else { return };
        let active = fleet.cluster().nodes().values().filter(|entry| entry.active).count();
        if active <= REPLICAS || fleet.presence() != Presence::Active {
            return;
        }
        self.note(&format!("node {place} is drained"));
        self.notes.tally.one("drains");
        let door = self.world.places[place].env.clone();
        let draining = Draining::begin(self.drains.clone());
        drop(self.world.sim.spawn_on(&door, async move {
            if fleet.deactivate().await.is_ok() {
                drop(fleet.drained(60 * SECOND).await);
            }
            drop(draining);
        }));
    }

    fn activate_all(&mut self) {
        for place in 0..self.world.places.len() {
            let Some(fleet) = self.world.fleet(place) else { continue };
            if fleet.presence() == Presence::Inactive {
                self.note(&format!("node {place} is activated"));
                let door = self.world.places[place].env.clone();
                let zone = format!("zone-{}", place % 3);
                drop(self.world.sim.spawn_on(&door, async move { drop(fleet.activate(&zone).await) }));
            }
        }
    }

    /// One fault, and what follows from it, before the next.
    fn break_something(&mut self) {
        let place = self.rng.below(self.world.places.len() as u64) as usize;
        let time = self.rng.duration(SECOND / 100, 4 * SECOND);
        let draw = self.rng.below(6);
        let name = match draw {
            0..=2 => KILL,
            3 => PAUSE,
            4 => CUT,
            _ => WEATHER,
        };
        if !self.limits.allow(name) {
            return;
        }
        match draw {
            // Memory is all there is: another node may die only when the last one has been replaced.
            0..=2 if self.may_kill(place) => {
                self.note(&format!("node {place} is killed, and started again after {time:?}"));
                self.notes.tally.one("nodes killed");
                self.world.kill(place);
                self.pass(time);
                self.world.restart(place);
                while self.durable && self.world.can_spare(place) && self.more.chance(STARTS_CUT_SHORT) {
                    let length = self.more.duration(Duration::ZERO, SECOND / 2);
                    self.pass(length);
                    self.note(&format!("node {place} ends {length:?} after its start"));
                    self.notes.tally.one("starts cut short");
                    self.world.kill(place);
                    self.world.restart(place);
                }
            }
            0..=2 => {
                self.notes.tally.one("deaths put off");
                self.pass(time);
            }
            3 => {
                self.note(&format!("node {place} stands still for {time:?}"));
                self.notes.tally.one("nodes paused");
                let env = self.world.places[place].env.clone();
                self.world.sim.pause(&env);
                self.pass(time);
                self.world.sim.resume(&env);
            }
            4 => {
                let others: Vec<String> =
                    (0..self.world.places.len()).filter(|other| *other != place).map(address).collect();
                let one_way = self.rng.chance(0.5);
                self.note(&format!("node {place} is cut off for {time:?}, one way: {one_way}"));
                self.notes.tally.one(if one_way { "one-way cuts" } else { "cuts" });
                if one_way {
                    self.world.sim.partition_one_way(&[address(place)], &others);
                } else {
                    self.world.sim.partition(&[address(place)], &others);
                }
                self.pass_cut(time, true);
                self.world.sim.heal();
            }
            _ => {
                let loss = self.rng.below(50) as f64 / 1000.0;
                let delay_max = self.rng.duration(SECOND / 1000, SECOND / 10);
                self.note(&format!("loss {loss}, delay {delay_max:?} for {time:?}"));
                self.notes.tally.one("bad weather");
                self.world.sim.set_net_config(NetConfig { loss, delay_max, ..NetConfig::default() });
                self.pass(time);
                self.world.sim.set_net_config(NetConfig::default());
            }
        }
    }

    fn may_kill(&self, place: usize) -> bool {
        let spared = self.durable && self.world.can_spare(place);
        spared || self.limits.breaks(Sabotage::KillsWithoutCare) || self.world.is_whole().is_ok()
    }

    fn mend(&mut self) {
        self.note("everything is mended");
        self.world.sim.heal();
        self.world.sim.set_net_config(NetConfig::default());
    }

    /// Every group that is still there shows its count, which must explain what its client was told.
    fn compare(&mut self) -> Result<(), String> {
        self.groups.iter().for_each(|group| group.stop.store(true, Ordering::Relaxed));
        let end = self.world.sim.elapsed() + 4 * CALL_TIMEOUT;
        while self.groups.iter().any(|group| !group.told.lock().ended) {
            if self.world.sim.elapsed() >= end {
                return Err("a client does not come to an end".into());
            }
            self.world.sim.run_for(SECOND / 10);
        }
        let (_, client) = self.client.clone().ok_or("there is no client")?;
        let listed = self.world.fleet(0).ok_or("node 0 is gone")?.cluster();
        for group in &self.groups {
            let told = group.told.lock().clone();
            self.notes.tally.add("commands", told.applied);
            self.notes.tally.add("commands with unknown end", told.unknown);
            if let Some(wrong) = told.wrong {
                return Err(format!("{}: {wrong}", group.name));
            }
            if !listed.groups().contains_key(&group.name) {
                continue;
            }
            let total = load::total(client.clone(), group.name.clone());
            let total =
                self.world.sim.run_until(4 * CALL_TIMEOUT, total).unwrap_or_else(|| Err("no answer".into()));
            let total = total.map_err(|why| format!("{} of a healed cluster: {why}", group.name))?;
            if !(told.applied..=told.applied + told.unknown).contains(&total) {
                return Err(format!("{} stands at {total}, and its client was told {told:?}", group.name));
            }
        }
        match self.surprises.lock().first() {
            Some(surprise) => Err(surprise.clone()),
            None => Ok(()),
        }
    }
}
