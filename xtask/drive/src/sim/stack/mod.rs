//! The scenario of the whole stack: agents on nodes that die and come back, empty or with their disks, under load, checked
//! to the last command.

mod faults;
pub(crate) mod ledger;
pub(crate) mod load;
mod plan;
mod storm;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::DistAgent;
use rafted_value::sim::{ClockConfig, NetConfig, Planted, Sim, SimRng};

use self::faults::Mend;
use self::load::Surroundings;
pub(super) use self::plan::KIND_NAMES;
use self::plan::Plan;
use self::storm::Storm;
use self::world::World;
use super::history;
use super::limits::Limits;
use super::notes::Notes;

const SECOND: Duration = Duration::from_secs(1);
/// A cluster forms, and heals, within this time.
const WHOLE_MAX: Duration = Duration::from_secs(180);
/// How long a call may take before its client gives up.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Plays one seed.
///
/// # Errors
///
/// What did not hold.
pub(super) fn play(seed: u64, limits: &Limits, notes: &mut Notes) -> Result<(), String> {
    let sim = Sim::new(seed, NetConfig::default());
    let mut run = Run::start(sim.clone(), limits, notes);
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
    around: Arc<Surroundings>,
    storm: Arc<Storm>,
    clients: Vec<DistAgent>,
    faults: u64,
    drift_ppm_max: u32,
    agenda: BTreeMap<(Duration, u64), Mend>,
    events: u64,
    draining: bool,
    limits: Limits,
    _planted: Option<Planted>,
    notes: &'a mut Notes,
}

impl<'a> Run<'a> {
    fn start(sim: Sim, limits: &Limits, notes: &'a mut Notes) -> Self {
        let mut rng = sim.rng();
        let plan = Plan::draw(&mut rng);
        sim.set_clock_config(ClockConfig { drift_ppm_max: plan.drift_ppm_max, ..ClockConfig::default() });
        notes.journal.note(Duration::ZERO, &format!("{plan:?}"));
        let planted = limits.planted();
        let around = Surroundings {
            agents: plan.agents,
            record: Default::default(),
            stop: false.into(),
            running: 0.into(),
        };
        notes.tally.one(if plan.disks.is_some() { "clusters on disks" } else { "clusters in memory" });
        Self {
            world: World::start(sim, &plan, CALL_TIMEOUT),
            rng,
            around: Arc::new(around),
            storm: Arc::new(Storm::new(plan.quota)),
            clients: Vec::new(),
            faults: plan.faults,
            drift_ppm_max: plan.drift_ppm_max,
            agenda: BTreeMap::new(),
            events: 0,
            draining: false,
            limits: limits.clone(),
            _planted: planted,
            notes,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        self.until_whole().map_err(|why| format!("it does not form: {why}"))?;
        self.start_clients()?;
        let begun = self.world.sim.elapsed();
        for _ in 0..self.faults {
            let calm = self.rng.duration(Duration::ZERO, 3 * SECOND);
            self.pass(calm);
            self.world.steps.check()?;
            let passed = self.world.sim.elapsed() - begun;
            if self.limits.time(passed) < passed {
                break;
            }
            self.break_something();
        }
        self.notes.faults_time = self.world.sim.elapsed() - begun;
        self.mend_all();
        let mended = self.world.sim.elapsed();
        self.until_whole().map_err(|why| format!("it does not heal: {why}"))?;
        self.notes.slowest_heal = self.world.sim.elapsed() - mended;
        self.end_load()?;
        self.compare()?;
        self.check_quota()?;
        self.world.steps.check()
    }

    fn note(&mut self, what: &str) {
        self.notes.journal.note(self.world.sim.elapsed(), what);
    }

    fn count(&mut self, what: &'static str) {
        self.notes.tally.one(what);
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
                Err(_) => self.world.sim.run_for(SECOND / 20),
            }
        }
    }

    fn start_clients(&mut self) -> Result<(), String> {
        for index in 0..2 {
            let (env, slot) = self.world.client(&format!("client-{index}"));
            let end = self.world.sim.elapsed() + 30 * SECOND;
            let client = loop {
                if let Some(client) = slot.lock().clone() {
                    break client;
                }
                if self.world.sim.elapsed() >= end {
                    return Err("a client does not connect to a healthy cluster".into());
                }
                self.world.sim.run_for(SECOND / 50);
            };
            for _ in 0..1 + self.rng.below(6) {
                let work = load::work(env.clone(), client.clone(), self.around.clone(), self.world.sim.rng());
                drop(self.world.sim.spawn_on(&env, work));
            }
            let (storm, around) = (self.storm.clone(), self.around.clone());
            let work = storm.work(env.clone(), client.clone(), around, self.world.sim.rng());
            drop(self.world.sim.spawn_on(&env, work));
            self.clients.push(client);
        }
        Ok(())
    }

    /// Stops the clients and waits for what they have under way.
    fn end_load(&mut self) -> Result<(), String> {
        self.around.stop.store(true, Ordering::Relaxed);
        let end = self.world.sim.elapsed() + CALL_TIMEOUT + 5 * SECOND;
        while self.around.running.load(Ordering::Relaxed) > 0 {
            if self.world.sim.elapsed() >= end {
                return Err("a client does not come to an end".into());
            }
            self.world.sim.run_for(SECOND / 10);
        }
        Ok(())
    }

    fn check_quota(&mut self) -> Result<(), String> {
        self.notes.tally.add("activations refused by a full quota", self.storm.refused());
        let check = self.storm.clone().check(self.clients[0].clone());
        let checked = self.world.sim.run_until(4 * CALL_TIMEOUT, check);
        checked.unwrap_or_else(|| Err("agents are not listed in time".into()))
    }

    /// Every agent takes one more command and shows its list, which must explain what the clients were told.
    fn compare(&mut self) -> Result<(), String> {
        let mut lists = BTreeMap::new();
        let client = self.clients[0].clone();
        for agent in 0..self.around.agents {
            let (asked, around) = (client.clone(), self.around.clone());
            let whole = self.world.sim.run_until(4 * CALL_TIMEOUT, async move {
                load::probe(asked.clone(), agent, around).await?;
                load::whole(asked, agent).await
            });
            let list = whole.unwrap_or_else(|| Err("no answer".into()));
            lists
                .insert((0, agent), list.map_err(|why| format!("agent {agent} of a healed cluster: {why}"))?);
        }
        let operations = self.around.record.operations();
        self.notes.tally.add("operations", operations.len() as u64);
        let perhaps =
            operations.iter().filter(|operation| operation.outcome == history::Outcome::Perhaps).count();
        self.notes.tally.add("operations with unknown end", perhaps as u64);
        let violations = history::check(&operations, &lists);
        if violations.is_empty() { Ok(()) } else { Err(violations.join("; ")) }
    }
}
