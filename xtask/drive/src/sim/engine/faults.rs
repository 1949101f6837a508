//! Breaks things, one draw at a time, and knows when each mends.

use std::time::Duration;

use rafted_value::sim::NetConfig;

use super::plan::{Kind, ms, one_of};
use super::run::{Event, Run};
use super::storage::End;
use crate::sim::sabotage::Sabotage;

/// How far a wall clock is moved at most.
const WALL_STEP_MAX: Duration = Duration::from_secs(8);

impl Run<'_> {
    /// One fault of the kind that is drawn.
    pub(super) fn break_something(&mut self) -> Result<(), String> {
        let kind = self.plan.faults.draw_kind(&mut self.rng);
        if !self.limits.allow(kind.name()) {
            return Ok(());
        }
        match kind {
            Kind::Kill => self.kill(End::Process),
            Kind::Stop => self.kill(End::Politely),
            Kind::PowerLoss => self.kill(End::Power),
            Kind::Blackout => self.black_out(),
            Kind::Pause => self.pause(),
            Kind::Depose => self.depose(),
            Kind::Isolate => self.isolate(),
            Kind::Split => self.split(),
            Kind::OneWay => self.cut_one_way(),
            Kind::Network => self.disturb_network(),
            Kind::Drift => self.drift(),
            Kind::Wall => self.move_wall_clock(),
            Kind::Churn => self.churn(),
            Kind::Transfer => self.transfer(),
            Kind::Configure => self.configure(),
            Kind::Usurp => self.usurp(),
            Kind::Freeze => self.freeze(),
        }
        Ok(())
    }

    /// A place, with a preference for those that matter.
    fn target(&mut self) -> usize {
        if self.rng.chance(0.6) {
            let group = one_of(&mut self.rng, &self.plan.groups).id;
            if let Some((place, _)) = self.cluster.leader(group) {
                return place;
            }
        }
        self.rng.below(self.cluster.places.len() as u64) as usize
    }

    pub(super) fn length(&mut self) -> Duration {
        let length_max = self.plan.faults.length_max;
        self.rng.duration(ms(1), length_max)
    }

    /// Ends a node if every group keeps a majority of its state.
    fn kill(&mut self, end: End) {
        let place = self.target();
        if self.is_bearable(&[place], end) {
            self.end_node(place, end);
        }
    }

    /// Power fails at all places at once, if every group has a majority of its state on disks.
    fn black_out(&mut self) {
        let places: Vec<usize> = (0..self.cluster.places.len()).collect();
        if self.is_bearable(&places, End::Power) {
            self.count("blackouts");
            for place in places {
                self.end_node(place, End::Power);
            }
        }
    }

    /// Whether every group keeps a majority of its state when these places end together.
    fn is_bearable(&mut self, places: &[usize], end: End) -> bool {
        let spared = self.operators.iter().any(|operator| {
            let left = self.cluster.members_left(operator.group(), places, end);
            !operator.memberships(&self.cluster).survive_with(&left)
        });
        if spared && self.plan.sabotage != Some(Sabotage::KillsWithoutCare) {
            self.count("kills withheld: too little state would be left");
            return false;
        }
        true
    }

    fn end_node(&mut self, place: usize, end: End) {
        let Some(life) = &self.cluster.places[place].life else { return };
        let node = life.env.node();
        match end {
            End::Politely if !life.paused => {
                let host = life.host.clone();
                // It hands its leaderships over first, and its disk is closed.
                let limit = self.plan.host.handover_max + ms(200);
                let stopped = self.cluster.sim.run_until(limit, async move { host.shutdown().await });
                self.count(if stopped.is_some() { "stops" } else { "stops that took too long" });
            }
            End::Process | End::Politely => self.count("kills"),
            End::Power => self.count("losses of power"),
        }
        let storage = self.cluster.places[place].storage.as_ref();
        if end == End::Power && storage.is_some_and(|storage| storage.disk.has_unsynced()) {
            self.count("rare: power lost with writes that were not synced");
        }
        self.cluster.kill(place, end);
        let absence_max = self.plan.faults.absence_max;
        let absence = self.rng.duration(Duration::ZERO, absence_max);
        self.note(&format!("end {node} at {place} ({end:?}), back in {absence:?}"));
        self.after(absence, Event::Return(place));
    }

    fn pause(&mut self) {
        let place = self.target();
        let length = self.length();
        let Some(life) = &self.cluster.places[place].life else { return };
        let node = life.env.node();
        self.note(&format!("pause {node} at {place} for {length:?}"));
        self.count("pauses");
        self.cluster.set_paused(place, true);
        self.after(length, Event::Resume(node));
    }

    /// Cuts a leader off the other nodes, but not off its clients, for about as long as it takes to elect another: it
    /// is the one that must know when to be silent.
    fn depose(&mut self) {
        let group = one_of(&mut self.rng, &self.plan.groups);
        let Some((place, _)) = self.cluster.leader(group.id) else { return };
        let leader = vec![self.cluster.places[place].address.clone()];
        let mut others = self.addresses(false);
        others.retain(|address| *address != leader[0]);
        let promise = ms(group.config.promise_ms.into());
        if self.rng.chance(0.5) {
            self.set_drift_against(place);
        }
        for eighth in 4..20 {
            self.after(promise * eighth / 8, Event::Glance);
        }
        let length = self.rng.duration(promise / 2, 3 * ms(group.config.election_timeout_max_ms.into()));
        self.count("leaders cut off their followers");
        self.partition(leader, others, length);
    }

    /// Stops a leader until another is elected, and lets it go on where it hears of no other node: raft counts ticks, which
    /// have not passed for it, and only the clock can tell it that its lease is over.
    fn freeze(&mut self) {
        let group = one_of(&mut self.rng, &self.plan.groups);
        let Some((place, _)) = self.cluster.leader(group.id) else { return };
        let Some(life) = &self.cluster.places[place].life else { return };
        let (node, here) = (life.env.node(), vec![self.cluster.places[place].address.clone()]);
        let mut others = self.addresses(false);
        others.retain(|address| *address != here[0]);
        let patience = ms(group.config.election_timeout_max_ms.into());
        let stands_still = self.rng.duration(patience, 3 * patience);
        self.count("leaders frozen");
        self.partition(here, others, stands_still + 2 * patience);
        self.cluster.set_paused(place, true);
        self.after(stands_still, Event::Resume(node));
    }

    /// Cuts one follower off the leader for so long that it campaigns again and again, and meanwhile restarts another
    /// voter, quickly: one that has just promised its leader to vote for nobody. Nobody writes meanwhile, for a follower
    /// that lacks an entry is nobody's choice.
    fn usurp(&mut self) {
        let group = one_of(&mut self.rng, &self.plan.groups);
        let Some((place, leader)) = self.cluster.leader(group.id) else { return };
        let voters = leader.status.members.iter().filter(|of| of.voter && of.member != leader.status.member);
        let places: Vec<usize> = voters.filter_map(|of| self.cluster.place_of(of.node)).collect();
        let Some(&hungry) = self.rng.pick(&places) else { return };
        let others: Vec<usize> = places.into_iter().filter(|other| *other != hungry).collect();
        let Some(&restarted) = self.rng.pick(&others) else { return };
        let address = |place: usize| vec![self.cluster.places[place].address.clone()];
        let (leading, cut_off) = (address(place), address(hungry));
        let patience = ms(group.config.election_timeout_max_ms.into());
        self.count("followers made hungry");
        let settled = ms((4 * group.config.heartbeat_ms).into());
        self.around.lulls.lock().insert(group.id);
        self.after(settled, Event::Cut(leading, cut_off, 4 * patience));
        let wait = settled + self.rng.duration(patience, 3 * patience);
        // As long as a promise lasts: it hears enough of its leader to make one, and may forget each of them.
        let every = ms(group.config.promise_ms.into());
        let more = one_of(&mut self.rng, &[0, 10]);
        self.after(wait, Event::Restart { place: restarted, leader: place, every, more });
        self.after(settled + 4 * patience, Event::Stir(group.id));
    }

    /// The process at a place ends and another begins at once, which the leader does not reach for up to `deaf_max`.
    pub(super) fn restart(&mut self, place: usize, leader: usize, deaf_max: Duration) -> Result<(), String> {
        if self.is_bearable(&[place], End::Process) && self.cluster.places[place].life.is_some() {
            self.count("quick restarts");
            self.note(&format!("restart {place}, deaf to {leader}"));
            let address = |place: usize| vec![self.cluster.places[place].address.clone()];
            let (from, to) = (address(leader), address(place));
            self.cluster.kill(place, End::Process);
            self.cluster.sim.partition_one_way(&from, &to);
            let length = self.rng.duration(Duration::ZERO, deaf_max);
            self.after(length, Event::Mend(from, to));
            self.come_back(place)?;
        }
        Ok(())
    }

    fn isolate(&mut self) {
        let place = self.target();
        let lonely = vec![self.cluster.places[place].address.clone()];
        let from_clients = self.rng.chance(0.5);
        let mut others = self.addresses(from_clients);
        others.retain(|address| *address != lonely[0]);
        self.count("nodes isolated");
        let length = self.length();
        self.partition(lonely, others, length);
    }

    fn split(&mut self) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for address in self.addresses(true) {
            let side = if self.rng.chance(0.5) { &mut left } else { &mut right };
            side.push(address);
        }
        self.count("network splits");
        let length = self.length();
        self.partition(left, right, length);
    }

    pub(super) fn partition(&mut self, left: Vec<String>, right: Vec<String>, length: Duration) {
        self.note(&format!("cut {left:?} off {right:?} for {length:?}"));
        self.cluster.sim.partition(&left, &right);
        self.after(length, Event::Mend(left, right));
    }

    fn cut_one_way(&mut self) {
        let place = self.target();
        let here = vec![self.cluster.places[place].address.clone()];
        let mut others = self.addresses(false);
        others.retain(|address| *address != here[0] && self.rng.chance(0.6));
        let length = self.length();
        let deaf = self.rng.chance(0.5);
        self.note(&format!(
            "{here:?} is {} {others:?} for {length:?}",
            if deaf { "deaf to" } else { "not heard by" }
        ));
        let (from, to) = if deaf { (&others, &here) } else { (&here, &others) };
        self.cluster.sim.partition_one_way(from, to);
        self.count("one-way cuts");
        self.after(length, Event::Mend(here, others));
    }

    /// The addresses of all places, and of the clients where asked.
    pub(super) fn addresses(&self, with_clients: bool) -> Vec<String> {
        let places = self.cluster.places.iter().map(|place| place.address.clone());
        let clients = self.clients.iter().map(|client| client.env.address().to_owned());
        places.chain(clients.filter(|_| with_clients)).collect()
    }

    fn disturb_network(&mut self) {
        let rng = &mut self.rng;
        let config = NetConfig {
            delay_max: ms(one_of(rng, &[1, 20, 100, 500])),
            loss: one_of(rng, &[0.0, 0.02, 0.2]),
            duplication: one_of(rng, &[0.0, 0.0, 0.1]),
            reordering: one_of(rng, &[0.0, 0.1, 0.5]),
            straggling_max: ms(one_of(rng, &[5, 50, 1_000])),
            bandwidth_bytes_per_second: one_of(rng, &[100_000, 125_000_000]),
            ..self.plan.network.clone()
        };
        if config.duplication > 0.0 {
            self.around.duplicates.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        let length = self.length();
        self.note(&format!(
            "network: delay to {:?}, loss {}, duplication {}, reordering {} by {:?}, {} bytes/s, for {length:?}",
            config.delay_max,
            config.loss,
            config.duplication,
            config.reordering,
            config.straggling_max,
            config.bandwidth_bytes_per_second
        ));
        self.cluster.sim.set_net_config(config);
        self.count("network disturbances");
        self.after(length, Event::Calm);
    }

    fn drift(&mut self) {
        let place = self.target();
        let max = i64::from(self.plan.drift_ppm_max);
        if self.rng.chance(0.5) {
            self.set_drift_against(place);
        } else {
            let drift = self.rng.below(2 * max.unsigned_abs() + 1) as i64 - max;
            self.set_drift(place, drift);
        }
        self.count("changes of clock drift");
    }

    /// The worst there is for a lease: its holder is slow and everybody else is fast.
    fn set_drift_against(&mut self, place: usize) {
        let max = i64::from(self.plan.drift_ppm_max);
        for other in 0..self.cluster.places.len() {
            self.set_drift(other, if other == place { -max } else { max });
        }
    }

    fn set_drift(&mut self, place: usize, drift: i64) {
        if let Some(life) = &self.cluster.places[place].life {
            self.cluster.sim.set_drift(&life.env, drift);
            self.note(&format!("the clock at {place} drifts by {drift} ppm"));
        }
    }

    fn move_wall_clock(&mut self) {
        let place = self.target();
        let by = self.rng.duration(Duration::ZERO, WALL_STEP_MAX);
        let forward = self.rng.chance(0.5);
        let Some(life) = &self.cluster.places[place].life else { return };
        if forward {
            self.cluster.sim.advance_wall(&life.env, by);
        } else {
            self.cluster.sim.set_back_wall(&life.env, by);
        }
        self.note(&format!("the wall clock at {place} jumps by {by:?}, forward: {forward}"));
        self.count("wall clock jumps");
    }

    fn churn(&mut self) {
        let index = self.rng.below(self.operators.len() as u64) as usize;
        if let Some(step) = self.operators[index].operate(&self.cluster, true, &mut self.rng) {
            let group = self.operators[index].group();
            self.note(&format!("group {group}: {step:?}, for no reason"));
            self.count("membership churn");
        }
    }
}
