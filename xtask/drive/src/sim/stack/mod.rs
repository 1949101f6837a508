//! The scenario of the whole stack: agents on nodes that die and come back empty, under load, checked to the last command.

mod ledger;
mod load;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::DistAgent;
use rafted_value::sim::{ClockConfig, NetConfig, Sim, SimRng};

use self::load::Surroundings;
use self::world::{World, address};
use super::history;
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
pub(super) fn play(seed: u64, notes: &mut Notes) -> Result<(), String> {
    let sim = Sim::new(seed, NetConfig::default());
    let mut run = Run::start(sim.clone(), notes);
    let result = run.play();
    notes.virtual_time = sim.elapsed();
    notes.trace_hash = sim.trace_hash();
    let stats = sim.stats();
    notes.tally.add("messages delivered", stats.delivered);
    notes.tally.add("messages lost", stats.lost);
    result
}

/// One seed.
struct Run<'a> {
    world: World,
    rng: SimRng,
    around: Arc<Surroundings>,
    clients: Vec<DistAgent>,
    notes: &'a mut Notes,
}

impl<'a> Run<'a> {
    fn start(sim: Sim, notes: &'a mut Notes) -> Self {
        let mut rng = sim.rng();
        sim.set_clock_config(ClockConfig { drift_ppm_max: 500, ..ClockConfig::default() });
        let nodes = 3 + rng.below(3) as usize;
        let shards = 1 + rng.below(4) as u32;
        let agents = 1 + rng.below(12) as u16;
        notes.journal.note(Duration::ZERO, &format!("{nodes} nodes, {shards} shards, {agents} agents"));
        let world = World::start(sim, nodes, shards, CALL_TIMEOUT);
        let around =
            Surroundings { agents, record: Default::default(), stop: false.into(), running: 0.into() };
        Self { world, rng, around: Arc::new(around), clients: Vec::new(), notes }
    }

    fn play(&mut self) -> Result<(), String> {
        self.until_whole().map_err(|why| format!("it does not form: {why}"))?;
        self.start_clients()?;
        let faults = 3 + self.rng.below(8);
        for _ in 0..faults {
            let calm = self.rng.duration(Duration::ZERO, SECOND);
            self.world.sim.run_for(calm);
            self.break_something();
        }
        self.mend();
        let mended = self.world.sim.elapsed();
        self.until_whole().map_err(|why| format!("it does not heal: {why}"))?;
        self.notes.slowest_heal = self.world.sim.elapsed() - mended;
        self.end_load()?;
        self.compare()
    }

    fn note(&mut self, what: &str) {
        self.notes.journal.note(self.world.sim.elapsed(), what);
    }

    fn until_whole(&mut self) -> Result<(), String> {
        let end = self.world.sim.elapsed() + WHOLE_MAX;
        loop {
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
            self.clients.push(client);
        }
        Ok(())
    }

    /// One fault, and what follows from it, before the next.
    fn break_something(&mut self) {
        let place = self.rng.below(self.world.places.len() as u64) as usize;
        let time = self.rng.duration(SECOND / 100, 4 * SECOND);
        match self.rng.below(6) {
            // Memory is all there is: another node may die only when the last one has been replaced.
            0..=2 if self.world.is_whole().is_ok() => {
                self.note(&format!("node {place} is killed, and replaced after {time:?}"));
                self.notes.tally.one("nodes killed");
                self.world.kill(place);
                self.world.sim.run_for(time);
                self.world.restart(place);
            }
            0..=2 => {
                self.note(&format!("no node may die yet; {time:?} pass"));
                self.notes.tally.one("deaths put off");
                self.world.sim.run_for(time);
            }
            3 => {
                self.note(&format!("node {place} stands still for {time:?}"));
                self.notes.tally.one("nodes paused");
                let env = self.world.places[place].env.clone();
                self.world.sim.pause(&env);
                self.world.sim.run_for(time);
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
                self.world.sim.run_for(time);
                self.world.sim.heal();
            }
            _ => {
                let loss = self.rng.below(50) as f64 / 1000.0;
                let delay_max = self.rng.duration(SECOND / 1000, SECOND / 10);
                self.note(&format!("loss {loss}, delay {delay_max:?} for {time:?}"));
                self.notes.tally.one("bad weather");
                self.world.sim.set_net_config(NetConfig { loss, delay_max, ..NetConfig::default() });
                self.world.sim.run_for(time);
                self.world.sim.set_net_config(NetConfig::default());
            }
        }
    }

    fn mend(&mut self) {
        self.note("everything is mended");
        self.world.sim.heal();
        self.world.sim.set_net_config(NetConfig::default());
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
