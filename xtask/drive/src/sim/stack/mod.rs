//! The scenario of the whole stack: agents on nodes that die and come back, empty or with their disks, under load, checked
//! to the last command.

mod faults;
mod invariants;
pub(crate) mod ledger;
pub(crate) mod load;
mod moves;
mod next_build;
mod operator;
mod plan;
mod shown;
mod storm;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::DistAgent;
use rafted_value::sim::{ClockConfig, NetConfig, Planted, Sim, SimEnv, SimRng};

use self::faults::Mend;
use self::load::{Rules, Surroundings};
pub(super) use self::plan::KIND_NAMES;
use self::plan::{BUILDS, MOVES, Plan};
use self::storm::Storm;
use self::world::{Build, End, World};
use super::history;
use super::limits::Limits;
use super::notes::Notes;
use super::sabotage::Sabotage;

const SECOND: Duration = Duration::from_secs(1);
/// A cluster forms, and heals, within this time.
const WHOLE_MAX: Duration = Duration::from_secs(180);
/// How long a call may take before its client gives up.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// What the engine says of a member whose state is not that of the others.
const DIVERGED: &str = "is not that of a majority";
/// What is alive of a quota is counted, and its last places are taken, within this time.
const STORM_MAX: Duration = Duration::from_secs(600);

/// Plays one seed.
///
/// # Errors
///
/// What did not hold.
pub(super) fn play(seed: u64, limits: &Limits, notes: &mut Notes) -> Result<(), String> {
    let sim = Sim::new(seed, NetConfig::default());
    let mut run = Run::start(sim.clone(), limits, notes);
    let result = run.play();
    run.world.read_out(&mut run.notes.tally);
    run.notes.tally.merge(&run.around.tally.lock());
    drop(run);
    notes.read_out(&sim);
    result
}

/// One seed.
struct Run<'a> {
    world: World,
    rng: SimRng,
    /// Decides which starts are cut short, and which disks fail.
    more: SimRng,
    around: Arc<Surroundings>,
    storm: Arc<Storm>,
    clients: Vec<(Arc<SimEnv>, DistAgent)>,
    faults: u64,
    drift_ppm_max: u32,
    moves_every: Option<Duration>,
    agenda: BTreeMap<(Duration, u64), Mend>,
    events: u64,
    draining: bool,
    limits: Limits,
    _planted: Option<Planted>,
    notes: &'a mut Notes,
}

impl<'a> Run<'a> {
    fn start(sim: Sim, limits: &Limits, notes: &'a mut Notes) -> Self {
        let (mut rng, more) = (sim.rng(), sim.named_rng("starts and disks"));
        let mut plan = Plan::draw(&mut rng);
        if !limits.allow(MOVES) {
            plan.moves = None;
        }
        // A broken member is one of the old build.
        if !limits.allow(BUILDS) || limits.breaks(Sabotage::OneMemberSlips) {
            plan.next_builds = None;
        }
        if limits.breaks(Sabotage::ClocksBeyondTheMargin) {
            plan.drift_ppm_max = 400_000;
        }
        sim.set_clock_config(ClockConfig { drift_ppm_max: plan.drift_ppm_max, ..ClockConfig::default() });
        notes.journal.note(Duration::ZERO, &format!("{plan:?}"));
        let planted = limits.planted();
        let rules = Rules {
            retries_in_new_sessions: limits.breaks(Sabotage::RetriesInNewSessions),
            reads_from_anybody: limits.breaks(Sabotage::ReadsFromAnybody),
        };
        let around = Surroundings {
            agents: plan.agents,
            rules,
            two_builds: plan.next_builds.is_some(),
            ..Surroundings::default()
        };
        notes.tally.one(if plan.disks.is_some() { "clusters on disks" } else { "clusters in memory" });
        Self {
            world: World::start(sim, &plan, limits, CALL_TIMEOUT),
            rng,
            more,
            around: Arc::new(around),
            storm: Arc::new(Storm::new(plan.quota)),
            clients: Vec::new(),
            faults: plan.faults,
            drift_ppm_max: plan.drift_ppm_max,
            moves_every: plan.moves.map(|moves| moves.asked_every),
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
            self.check()?;
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
        self.end_moves()?;
        self.compare()?;
        self.check_quota()?;
        self.check()
    }

    /// # Errors
    ///
    /// The first thing that did not hold so far.
    fn check(&self) -> Result<(), String> {
        self.world.check()?;
        self.around.complaint.lock().clone().map_or(Ok(()), Err)
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
            self.check()?;
            self.replace_refused();
            match self.world.is_whole() {
                Ok(()) => return Ok(()),
                // A member that came to another state stays away until its operator looks at it.
                Err(why) if why.contains(DIVERGED) => return Err(why),
                Err(why) if self.world.sim.elapsed() >= end => {
                    return Err(format!("after {WHOLE_MAX:?}: {why}"));
                }
                Err(_) => self.world.sim.run_for(SECOND / 20),
            }
        }
    }

    /// Nodes that were told that their build cannot be part of the cluster are started as the next one.
    fn replace_refused(&mut self) {
        for place in self.world.refused() {
            self.note(&format!(
                "node {place} of the old build was refused, and is replaced by one of the next"
            ));
            self.count("nodes of the old build refused");
            self.world.kill(place, End::Process);
            self.world.restart_as(place, Build::Next);
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
            if let Some(every) = self.moves_every.filter(|_| index == 0) {
                let (around, rng) = (self.around.clone(), self.world.sim.rng());
                let work = operator::work(env.clone(), client.clone(), around, every, rng);
                drop(self.world.sim.spawn_on(&env, work));
            }
            self.clients.push((env, client));
        }
        Ok(())
    }

    /// Stops the clients and waits for what they have under way.
    fn end_load(&mut self) -> Result<(), String> {
        self.around.stop.store(true, Ordering::Relaxed);
        let end = self.world.sim.elapsed() + 2 * CALL_TIMEOUT;
        while self.around.running.load(Ordering::Relaxed) > 0 {
            if self.world.sim.elapsed() >= end {
                return Err("a client does not come to an end".into());
            }
            self.world.sim.run_for(SECOND / 10);
        }
        Ok(())
    }

    /// Whatever is on its way arrives, or stays where it was.
    fn end_moves(&mut self) -> Result<(), String> {
        let end = self.world.sim.elapsed() + WHOLE_MAX;
        loop {
            let (_, client) = self.clients[0].clone();
            let asked = self.world.sim.run_until(CALL_TIMEOUT, async move { client.kv().moves().await });
            match asked {
                Some(Ok(moves)) if moves.is_empty() && self.world.shown.moves_under_way() == 0 => {
                    return Ok(());
                }
                last if self.world.sim.elapsed() >= end => {
                    return Err(format!("moves do not come to an end: {last:?}"));
                }
                _ => self.world.sim.run_for(SECOND / 4),
            }
        }
    }

    fn check_quota(&mut self) -> Result<(), String> {
        self.storm.read_out(&mut self.notes.tally);
        let (env, client) = self.clients[0].clone();
        let check = self.world.sim.spawn_on(&env, self.storm.clone().check(env.clone(), client));
        let checked = self.world.sim.run_until(STORM_MAX, check).flatten();
        checked.unwrap_or_else(|| Err("agents are not listed in time".into()))
    }

    /// Every agent takes one more command and shows its list, which must explain what the clients were told.
    fn compare(&mut self) -> Result<(), String> {
        let mut lists = BTreeMap::new();
        let (_, client) = self.clients[0].clone();
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
