//! One seed from its first node to its verdict: load under faults, then everything mended and everything compared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rafted_value::sim::{ClockConfig, NetConfig, Planted, Sim, SimRng};
use rafted_value::{GroupStatus, MemberId, NodeId};

use super::client::{Client, Surroundings};
use super::cluster::Cluster;
use super::invariants::{Invariants, Sighting};
use super::operator::Operator;
use super::plan::{Plan, ms, one_of};
use super::storage::End;
use crate::sim::limits::Limits;
use crate::sim::notes::Notes;
use crate::sim::steps::Scene;

/// A group must be led and have all its members within this time where nothing breaks.
const CALM_MAX: Duration = Duration::from_secs(60);
/// The same after the faults: a member on its way may first have to be given up by the snapshot that it did not get.
const HEAL_MAX: Duration = Duration::from_secs(40);
/// Every group must take commands within this time after it is healed. A full session table must empty first, in stamped
/// time, which stands still while the leader's wall clock catches up with one that jumped ahead.
const SERVE_MAX: Duration = Duration::from_secs(120);
/// Every group must have a leader within this time after the faults, however it must find one.
const LED_MAX: Duration = Duration::from_secs(15);
/// So many starts end before they are done.
const STARTS_CUT_SHORT: f64 = 0.15;

/// Everything of one seed.
pub(super) struct Run<'a> {
    pub(super) plan: Plan,
    pub(super) rng: SimRng,
    /// Decides which starts are cut short.
    starts: SimRng,
    pub(super) cluster: Cluster,
    pub(super) operators: Vec<Operator>,
    pub(super) around: Arc<Surroundings>,
    pub(super) clients: Vec<Client>,
    pub(super) invariants: Invariants,
    agenda: BTreeMap<(Duration, u64), Event>,
    events: u64,
    breaking: bool,
    pub(super) limits: Limits,
    _planted: Option<Planted>,
    notes: &'a mut Notes,
}

/// What the harness does at its time.
pub(super) enum Event {
    /// Looks at all members, now and from now on.
    Look,
    /// Looks once.
    Glance,
    Operate,
    Break,
    Resume(NodeId),
    Mend(Vec<String>, Vec<String>),
    /// Two sides lose each other for so long.
    Cut(Vec<String>, Vec<String>, Duration),
    /// Clients write to a group again.
    Stir(u64),
    Calm,
    /// A node starts at a place, from the disk that is there if any.
    Return(usize),
    /// The node at a place ends and is back at once, and once more after `every`, so often.
    Restart {
        place: usize,
        leader: usize,
        every: Duration,
        more: u32,
    },
    /// The node at a place is told to whom a group's leadership should go; `None` takes the last order back.
    Order(usize, u64, Option<MemberId>),
}

impl<'a> Run<'a> {
    /// A cluster with its groups founded and its clients idle.
    pub(super) fn start(seed: u64, limits: &Limits, notes: &'a mut Notes) -> Result<Self, String> {
        let sim = Sim::new(seed, NetConfig::default());
        let (mut rng, starts) = (sim.rng(), sim.named_rng("starts"));
        let mut plan = Plan::draw(&mut rng);
        plan.sabotage(limits.plant);
        plan.faults.time = limits.time(plan.faults.time);
        notes.faults_time = plan.faults.time;
        sim.set_net_config(plan.network.clone());
        let planted = limits.planted();
        notes.journal.note(Duration::ZERO, &format!("{plan:?}"));
        sim.set_clock_config(ClockConfig { drift_ppm_max: plan.drift_ppm_max, ..ClockConfig::default() });
        let witness = Arc::default();
        let cluster = Cluster::start(sim, &plan, &witness)?;
        let around = Arc::new(Surroundings {
            directory: cluster.directory.clone(),
            witness,
            record: Default::default(),
            load: plan.load.clone(),
            duplicates: false.into(),
            lulls: Default::default(),
            stop: false.into(),
            running: 0.into(),
            tally: Default::default(),
            complaint: Default::default(),
        });
        let operators = plan.groups.iter().map(|group| Operator::new(group, plan.disks.as_ref())).collect();
        let mut run = Self {
            plan,
            rng,
            starts,
            cluster,
            operators,
            around,
            clients: Vec::new(),
            invariants: Invariants::default(),
            agenda: BTreeMap::new(),
            events: 0,
            breaking: false,
            limits: limits.clone(),
            _planted: planted,
            notes,
        };
        for group in &run.plan.groups {
            run.cluster.found(group)?;
        }
        run.after(Duration::ZERO, Event::Look);
        run.after(ms(1), Event::Operate);
        Ok(run)
    }

    /// The whole of it.
    ///
    /// # Errors
    ///
    /// What did not hold.
    pub(super) fn play(&mut self) -> Result<(), String> {
        self.until_content(CALM_MAX).map_err(|why| format!("before any fault: {why}"))?;
        self.start_clients();
        self.breaking = true;
        self.after(Duration::ZERO, Event::Break);
        self.pass(self.plan.faults.time)?;
        self.breaking = false;
        self.note("everything is mended");
        self.cluster.mend(&self.plan.network)?;
        self.invariants.forget_indices();
        let mended = self.cluster.sim.elapsed();
        let mended_and = |why| format!("everything is mended, and {why}");
        self.until(LED_MAX, |run| run.plan.groups.iter().try_for_each(|group| run.is_led(group.id)))
            .map_err(mended_and)?;
        self.until_content(HEAL_MAX).map_err(mended_and)?;
        let healed = self.cluster.sim.elapsed() - mended;
        self.notes.slowest_heal = self.notes.slowest_heal.max(healed);
        self.pass(ms(200))?;
        self.end_load()?;
        self.probe()?;
        self.until_equal(HEAL_MAX).map_err(mended_and)?;
        self.count_left_behind();
        self.compare()
    }

    /// Notes how far it came, however it ended.
    pub(super) fn conclude(&mut self) {
        self.notes.read_out(&self.cluster.sim);
        self.notes.tally.merge(&self.around.tally.lock());
        self.notes.tally.add("leader changes", self.invariants.leader_changes());
        let commands: u64 = self.plan.groups.iter().map(|group| self.around.witness.ran(group.id)).sum();
        self.notes.tally.add("commands run", commands);
        self.cluster.steps.read_out(&mut self.notes.tally);
    }

    /// Writes a line into the seed's journal.
    pub(super) fn note(&mut self, what: &str) {
        self.notes.journal.note(self.cluster.sim.elapsed(), what);
    }

    /// Counts an event.
    pub(super) fn count(&mut self, what: &'static str) {
        self.notes.tally.one(what);
    }

    /// Puts an event on the agenda.
    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.events += 1;
        self.agenda.insert((self.cluster.sim.elapsed() + wait, self.events), event);
    }

    fn start_clients(&mut self) {
        let busy = self.plan.groups.iter().filter(|group| !group.idle);
        let groups: Vec<u64> = busy.map(|group| group.id).collect();
        for index in 0..self.plan.load.clients {
            let env = self.cluster.sim.start_node("client", &format!("sim:client-{index}"));
            let client = Client::new(env, self.around.clone(), &groups).of_several(index);
            for _ in 0..self.plan.load.concurrency {
                let work = client.clone().work(self.cluster.sim.rng());
                drop(self.cluster.sim.spawn_on(&client.env, work));
            }
            self.clients.push(client);
        }
    }

    /// Lets `time` pass, and does what is due in it.
    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.cluster.sim.elapsed() + time;
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= end
        {
            let ((due, _), event) = entry.remove_entry();
            self.run_to(due);
            self.happen(event)?;
        }
        self.run_to(end);
        Ok(())
    }

    fn run_to(&mut self, time: Duration) {
        let passed = time.saturating_sub(self.cluster.sim.elapsed());
        self.cluster.sim.run_for(passed);
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Look => {
                self.look()?;
                let wait = self.rng.duration(ms(1), self.plan.watch_every);
                self.after(wait, Event::Look);
            }
            Event::Glance => self.look()?,
            Event::Operate => self.operate()?,
            Event::Break if self.breaking => {
                // What is broken depends on who leads and who is there.
                self.look()?;
                self.break_something()?;
                let wait = self.rng.duration(Duration::ZERO, self.plan.faults.gap_max);
                self.after(wait, Event::Break);
            }
            Event::Break => {}
            Event::Resume(node) => {
                if let Some(place) = self.cluster.place_of(node) {
                    self.cluster.set_paused(place, false);
                }
            }
            Event::Mend(left, right) => self.cluster.sim.heal_between(&left, &right),
            Event::Cut(left, right, length) if self.breaking => self.partition(left, right, length),
            Event::Cut(..) => {}
            Event::Stir(group) => {
                self.around.lulls.lock().remove(&group);
            }
            Event::Calm => self.cluster.sim.set_net_config(self.plan.network.clone()),
            Event::Order(place, group, to) => self.order(place, group, to),
            Event::Return(place) => self.come_back(place)?,
            Event::Restart { place, leader, every, more } if self.breaking => {
                self.restart(place, leader, every)?;
                if more > 0 {
                    self.after(every, Event::Restart { place, leader, every, more: more - 1 });
                }
            }
            Event::Restart { .. } => {}
        }
        Ok(())
    }

    /// A node starts at a place that is free.
    pub(super) fn come_back(&mut self, place: usize) -> Result<(), String> {
        if self.cluster.places[place].life.is_none() {
            let storage = self.cluster.places[place].storage.is_some();
            while storage && self.breaking && self.starts.chance(STARTS_CUT_SHORT) {
                self.cut_start_short(place)?;
            }
            self.cluster.start_node(place)?;
            self.invariants.forget_indices();
            self.count(if storage { "nodes restarted from their disks" } else { "nodes replaced" });
        }
        Ok(())
    }

    /// A node begins on its disk, and ends in the middle of it.
    fn cut_start_short(&mut self, place: usize) -> Result<(), String> {
        let length_max = ms(one_of(&mut self.starts, &[1, 10, 100]));
        let length = self.starts.duration(Duration::ZERO, length_max);
        let power = self.starts.chance(0.5) && self.cluster.wakes_after(place, End::Power);
        let end = if power { End::Power } else { End::Process };
        self.note(&format!("a start at {place} is cut short after {length:?} ({end:?})"));
        self.count("starts cut short");
        self.cluster.start_in_vain(place, length, end)
    }

    /// Looks at all members at this instant and checks what must hold.
    fn look(&mut self) -> Result<(), String> {
        let sightings = self.cluster.look()?;
        self.invariants.observe(&sightings)?;
        self.cluster.steps.check()?;
        self.set_scene();
        self.around.witness.check()?;
        for operator in &mut self.operators {
            operator.follow_up(&self.cluster, &mut self.notes.tally);
        }
        self.around.complaint.lock().clone().map_or(Ok(()), Err)
    }

    fn set_scene(&self) {
        let cut = self.agenda.values().any(|event| matches!(event, Event::Mend(..)));
        let changing = self.operators.iter().any(Operator::is_at_work);
        let dead = self.cluster.places.iter().any(|place| place.life.is_none());
        self.cluster.steps.set_scene(Scene { cut, changing, dead, ..Scene::default() });
    }

    fn operate(&mut self) -> Result<(), String> {
        self.look()?;
        for index in 0..self.operators.len() {
            if let Some(step) = self.operators[index].operate(&self.cluster, false, &mut self.rng) {
                let group = self.operators[index].group();
                self.note(&format!("group {group}: {step:?}"));
            }
        }
        let every = if self.breaking { self.plan.faults.operator_every } else { ms(20) };
        let wait = self.rng.duration(every / 4, every);
        self.after(wait, Event::Operate);
        Ok(())
    }

    /// Waits until every group is led and has the members it should.
    fn until_content(&mut self, limit: Duration) -> Result<(), String> {
        self.until(limit, |run| {
            for operator in &run.operators {
                operator
                    .is_content(&run.cluster)
                    .map_err(|why| format!("group {}: {why}", operator.group()))?;
            }
            Ok(())
        })
    }

    /// Waits until all members of every group have applied all there is.
    fn until_equal(&mut self, limit: Duration) -> Result<(), String> {
        self.until_content(limit)?;
        self.until(limit, |run| run.plan.groups.iter().try_for_each(|group| run.is_equal(group.id)))
    }

    fn is_led(&self, group: u64) -> Result<(), String> {
        if self.cluster.leader(group).is_some() {
            return Ok(());
        }
        let views = self.cluster.views(group).map(|(place, view)| {
            let GroupStatus { member, role, term, members, commit_index, last_index, .. } = &view.status;
            let voters: Vec<_> = members.iter().filter(|of| of.voter).map(|of| of.member).collect();
            format!("{member} at {place} is {role:?} in term {term} of {voters:?}, {commit_index} of {last_index} committed")
        });
        let views: Vec<_> = views.collect();
        Err(format!("group {group} has no leader that serves: {views:#?}"))
    }

    /// Members that were removed, have state, and do not know it.
    fn count_left_behind(&mut self) {
        for operator in &self.operators {
            let Some((_, leader)) = self.cluster.leader(operator.group()) else { continue };
            let known = |view: &Sighting| {
                leader.status.members.iter().any(|member| member.member == view.status.member)
            };
            let left = self.cluster.views(operator.group());
            let left = left.filter(|(_, view)| !view.status.data.is_empty() && !known(view)).count();
            self.notes.tally.add("removed members that have not heard of it", left as u64);
        }
    }

    fn is_equal(&self, group: u64) -> Result<(), String> {
        let (_, leader) = self.cluster.leader(group).ok_or(format!("group {group} has no leader"))?;
        let views: BTreeMap<_, _> =
            self.cluster.views(group).map(|(_, view)| (view.status.member, &view.status)).collect();
        for member in &leader.status.members {
            let applied = views.get(&member.member).map(|status| status.applied_index);
            if applied != Some(leader.status.last_index) {
                return Err(format!(
                    "group {group}: {} has applied {applied:?} of {}",
                    member.member, leader.status.last_index
                ));
            }
        }
        Ok(())
    }

    fn until(
        &mut self,
        limit: Duration,
        condition: impl Fn(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.cluster.sim.elapsed() + limit;
        loop {
            self.look()?;
            match condition(self) {
                Ok(()) => return Ok(()),
                Err(why) if self.cluster.sim.elapsed() >= end => {
                    return Err(format!("after {limit:?}: {why}"));
                }
                Err(_) => self.pass(ms(10))?,
            }
        }
    }

    /// Stops the clients and waits for what they have under way.
    fn end_load(&mut self) -> Result<(), String> {
        self.around.stop.store(true, Ordering::Relaxed);
        let limit = self.plan.load.give_up_after + self.plan.load.attempt_limit + ms(2_000);
        self.until(limit, |run| match run.around.running.load(Ordering::Relaxed) {
            0 => Ok(()),
            running => Err(format!("{running} clients do not come to an end")),
        })
    }

    /// Every group must take a command from a new client.
    fn probe(&mut self) -> Result<(), String> {
        let groups: Vec<u64> = self.plan.groups.iter().map(|group| group.id).collect();
        let end = self.cluster.sim.elapsed() + SERVE_MAX;
        let env = self.cluster.sim.start_node("probe", "sim:probe");
        let client = Client::new(env, self.around.clone(), &groups);
        loop {
            let probe = client.clone().probe(self.cluster.sim.rng());
            let answer = Arc::new(parking_lot::Mutex::new(None));
            let slot = answer.clone();
            drop(self.cluster.sim.spawn_on(&client.env, async move {
                let result = probe.await;
                *slot.lock() = Some(result);
            }));
            self.until(SERVE_MAX, |_| {
                if answer.lock().is_some() { Ok(()) } else { Err("a probe has no end".into()) }
            })?;
            let result = answer.lock().take();
            match result {
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) if self.cluster.sim.elapsed() >= end => return Err(why),
                _ => {}
            }
        }
    }
}
