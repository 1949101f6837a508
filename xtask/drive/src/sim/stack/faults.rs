//! Breaks things, one draw at a time. What a fault breaks for a while mends itself while others go on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::raft_kv::raft_fleet::FleetError;
use dist_agent::raft_kv::{Move, MovePhase};
use rafted_value::NodeId;
use rafted_value::env::{Env, sleep};
use rafted_value::sim::{NetConfig, SimDisk};
use rafted_value::transport::CallError;

use super::plan::{Kind, WALL_OFFSET_MAX, draw_weather};
use super::world::{End, Place, address};
use super::{Run, SECOND};
use crate::sim::sabotage::Sabotage;
use crate::sim::steps::Scene;

/// How often a node whose drain was given up asks to be one like the others again.
const REJOINS_MAX: u32 = 100;
/// How long a node that is drained may take.
const DRAIN_MAX: Duration = Duration::from_secs(40);
/// How long it may take to hear which moves are under way.
const ASKED_MAX: Duration = Duration::from_millis(500);
/// What no other node speaks.
const OTHER_WIRE_VERSION: u16 = 2;
/// So many starts on disks end before they are done.
const STARTS_CUT_SHORT: f64 = 0.15;
/// So many disks that were to be full fail instead.
const FAILS: f64 = 0.4;

/// What is due later.
pub(super) enum Mend {
    /// A node begins at a place.
    Restart(usize),
    /// It ends again, in the middle of its start or soon after.
    CutShort(usize, End),
    /// The node at a place goes on.
    Resume(usize),
    /// These links work again.
    Join(Vec<String>, Vec<String>),
    Calm,
    /// A node that speaks another wire version is replaced by one that does not.
    Replace(usize),
    /// A disk has room again; whoever lives on it begins anew.
    Room(usize),
    /// A disk fails no more; whoever lives on it begins anew.
    Change(usize, End),
}

impl Run<'_> {
    /// One fault.
    pub(super) fn break_something(&mut self) {
        let (kind, name) = Kind::draw(&mut self.rng);
        let place = self.rng.below(self.world.places.len() as u64) as usize;
        let time = self.rng.duration(SECOND / 100, 4 * SECOND);
        if !self.limits.allow(name) {
            return;
        }
        match kind {
            Kind::Kill => self.end(place, End::Process, time),
            Kind::PowerLoss => self.end(place, End::Power, time),
            Kind::Wipe => self.wipe(place, time),
            Kind::Blackout => self.black_out(time),
            Kind::Pause => self.pause(place, time),
            Kind::Cut | Kind::OneWay => self.cut(place, time, kind == Kind::OneWay),
            Kind::Partial => self.cut_partly(time),
            Kind::Weather => self.disturb_network(time),
            Kind::Drift => self.drift(),
            Kind::Wall => self.move_wall_clock(place),
            Kind::FullDisk => self.fill_disk(place, time),
            Kind::Drain => self.drain(place),
            Kind::Wire => self.speak_otherwise(place, time),
            Kind::Storm => self.storm(),
            Kind::Performer => self.end_performer(time),
        }
    }

    /// Whether a node may end so: what only memory holds may be lost when every other copy of it is there.
    fn may_end(&mut self, place: usize, loses_state: bool) -> bool {
        if !self.world.places[place].alive {
            return false;
        }
        let careless = self.limits.breaks(Sabotage::KillsWithoutCare);
        let bearable = !loses_state || careless || self.world.is_whole().is_ok();
        if !bearable {
            self.count("deaths put off: too few copies would be left");
        }
        bearable
    }

    fn end(&mut self, place: usize, end: End, time: Duration) {
        let in_memory = self.world.places[place].disk.is_none();
        if self.may_end(place, in_memory) {
            self.note(&format!("node {place} ends ({end:?}), and is back after {time:?}"));
            self.count(match (in_memory, end) {
                (true, _) => "nodes killed, and replaced by empty ones",
                (false, End::Process) => "processes killed",
                (false, End::Power) => "losses of power",
            });
            let disk = self.world.places[place].disk.as_ref();
            if end == End::Power && disk.is_some_and(SimDisk::has_unsynced) {
                self.count("rare: power lost with writes that were not synced");
            }
            self.world.kill(place, end);
            self.after(time, Mend::Restart(place));
        }
    }

    /// The node that performs a move dies, that of one which is being undone first.
    fn end_performer(&mut self, time: Duration) {
        let Some((env, client)) = self.clients.first().cloned() else { return };
        let asked = self.world.sim.spawn_on(&env, async move { client.kv().moves().await });
        let Some(Some(Ok(mut moves))) = self.world.sim.run_until(ASKED_MAX, asked) else { return };
        let is_undone = |performed: &Move| matches!(performed.phase, MovePhase::Aborting(_));
        moves.sort_by_key(|performed| !is_undone(performed));
        let alive =
            |node: NodeId| self.world.places.iter().position(|place| place.alive && place.env.node() == node);
        let found = moves.iter().find_map(|performed| Some((alive(performed.performer?)?, performed)));
        let Some((place, performed)) = found else { return };
        self.note(&format!("node {place} performs {performed:?}"));
        self.count(if is_undone(performed) {
            "rare: the performer of a move that is being undone was to die"
        } else {
            "performers of moves that were to die"
        });
        self.end(place, End::Process, time);
    }

    fn wipe(&mut self, place: usize, time: Duration) {
        if self.may_end(place, true) {
            self.note(&format!("node {place} loses all it had, and is replaced after {time:?}"));
            self.count("nodes that lost their disks");
            self.world.kill(place, End::Process);
            self.world.wipe(place);
            self.after(time, Mend::Restart(place));
        }
    }

    fn black_out(&mut self, time: Duration) {
        if self.world.places.iter().any(|place| place.disk.is_none()) {
            return;
        }
        self.note("the power fails everywhere");
        self.count("blackouts");
        for place in 0..self.world.places.len() {
            if self.world.places[place].alive {
                self.world.kill(place, End::Power);
                let time = self.rng.duration(Duration::ZERO, time);
                self.after(time, Mend::Restart(place));
            }
        }
    }

    fn pause(&mut self, place: usize, time: Duration) {
        if self.world.places[place].alive && !self.world.places[place].paused {
            self.note(&format!("node {place} stands still for {time:?}"));
            self.count("nodes paused");
            self.world.set_paused(place, true);
            self.after(time, Mend::Resume(place));
        }
    }

    fn cut(&mut self, place: usize, time: Duration, one_way: bool) {
        let here = vec![address(place)];
        let others: Vec<String> =
            (0..self.world.places.len()).filter(|other| *other != place).map(address).collect();
        self.note(&format!("node {place} is cut off for {time:?}, one way: {one_way}"));
        self.count(if one_way { "one-way cuts" } else { "cuts" });
        if !one_way {
            self.world.sim.partition(&here, &others);
        } else if self.rng.chance(0.5) {
            self.world.sim.partition_one_way(&here, &others);
        } else {
            self.world.sim.partition_one_way(&others, &here);
        }
        self.after(time, Mend::Join(here, others));
    }

    /// Every link between two nodes works or does not by a draw of its own.
    fn cut_partly(&mut self, time: Duration) {
        let places = self.world.places.len();
        let mut cut = 0;
        for left in 0..places {
            for right in left + 1..places {
                if self.rng.chance(0.3) {
                    cut += 1;
                    self.world.sim.partition(&[address(left)], &[address(right)]);
                    self.after(time, Mend::Join(vec![address(left)], vec![address(right)]));
                }
            }
        }
        self.note(&format!("{cut} links are cut for {time:?}"));
        self.count("partial partitions");
    }

    fn disturb_network(&mut self, time: Duration) {
        let weather = draw_weather(&mut self.rng);
        self.note(&format!(
            "for {time:?}: loss {}, delay to {:?}, duplication {}, reordering {}",
            weather.loss, weather.delay_max, weather.duplication, weather.reordering
        ));
        self.count("bad weather");
        if weather.duplication > 0.0 {
            self.count("bad weather that sends messages twice");
        }
        self.world.sim.set_net_config(weather);
        self.after(time, Mend::Calm);
    }

    fn drift(&mut self) {
        let max = i64::from(self.drift_ppm_max);
        for place in 0..self.world.places.len() {
            let drift = self.rng.below(2 * max.unsigned_abs() + 1) as i64 - max;
            let env = self.world.places[place].env.clone();
            self.world.sim.set_drift(&env, drift);
        }
        self.note("clocks change their speed");
        self.count("changes of clock drift");
    }

    fn move_wall_clock(&mut self, place: usize) {
        let max = WALL_OFFSET_MAX.as_millis() as u64;
        let offset_ms = self.rng.below(2 * max + 1) as i64 - max as i64;
        let Place { env, wall_offset_ms, .. } = &mut self.world.places[place];
        let step_ms = offset_ms - std::mem::replace(wall_offset_ms, offset_ms);
        let (env, step) = (env.clone(), Duration::from_millis(step_ms.unsigned_abs()));
        if step_ms > 0 {
            self.world.sim.advance_wall(&env, step);
        } else {
            self.world.sim.set_back_wall(&env, step);
        }
        self.note(&format!("the wall clock of node {place} jumps by {step_ms} ms"));
        self.count("wall clock jumps");
    }

    fn fill_disk(&mut self, place: usize, time: Duration) {
        if self.world.places[place].disk.is_some() && self.more.chance(FAILS) {
            return self.fail_disk(place, time);
        }
        let Some(disk) = &self.world.places[place].disk else { return };
        let bytes: usize = disk.files().values().map(Vec::len).sum();
        let room = self.rng.below(4_000);
        disk.set_bytes_max(Some(bytes as u64 + room));
        self.note(&format!("the disk of node {place} has room for {room} bytes, for {time:?}"));
        self.count("full disks");
        self.after(time, Mend::Room(place));
    }

    /// A disk fails under a node that lives on: what was written is still read, and may never be durable. Only once: where a
    /// node cannot even write down that its disk has failed, what it comes back with may be less than it had acknowledged.
    fn fail_disk(&mut self, place: usize, time: Duration) {
        let Some(disk) = self.world.places[place].disk.clone() else { return };
        let syncs = self.more.chance(0.7);
        match syncs {
            true => disk.fail_syncs(1),
            false => disk.fail_writes(1),
        }
        let end = if self.more.chance(0.5) { End::Power } else { End::Process };
        self.note(&format!("the disk of node {place} fails, a sync: {syncs}; {end:?} after {time:?}"));
        self.count("disks that failed under a node that lived on");
        self.after(time, Mend::Change(place, end));
    }

    /// Whether a start on a disk is cut short, and the next one too.
    fn cut_start_short(&mut self, place: usize) {
        if self.world.places[place].disk.is_some()
            && !self.around.calm.load(Ordering::Relaxed)
            && self.more.chance(STARTS_CUT_SHORT)
        {
            let length_max = *self.more.pick(&[10, 100, 1_000]).unwrap_or(&100);
            let length = self.more.duration(Duration::ZERO, Duration::from_millis(length_max));
            let end = if self.more.chance(0.5) { End::Power } else { End::Process };
            self.note(&format!("node {place} ends {length:?} after its start ({end:?})"));
            self.count("starts cut short");
            self.after(length, Mend::CutShort(place, end));
        }
    }

    /// A node comes back as a build that no other understands. It is told so, and is no part of the cluster.
    fn speak_otherwise(&mut self, place: usize, time: Duration) {
        let in_memory = self.world.places[place].disk.is_none();
        // Two of them would understand each other.
        let one_is_there = self.world.places.iter().any(|place| place.stranger);
        if one_is_there || !self.may_end(place, in_memory) {
            return;
        }
        self.note(&format!("node {place} comes back with another wire version, for {time:?}"));
        self.count("nodes of another wire version");
        self.world.kill(place, End::Process);
        self.world.restart_speaking(place, OTHER_WIRE_VERSION);
        self.after(time, Mend::Replace(place));
        let other = (place + 1) % self.world.places.len();
        let env = self.world.places[place].env.clone();
        let asked = async move { env.transport().discover(&address(other), SECOND).await };
        match self.world.sim.run_until(SECOND, asked) {
            Some(Err(CallError::NoPeer { reason, .. })) if reason.contains("another wire version") => {
                self.count("nodes of another wire version that were told so");
            }
            Some(Ok(_)) => {
                let complaint =
                    format!("node {other} lets in node {place}, which speaks another wire version");
                self.around.complaint.lock().get_or_insert(complaint);
            }
            _ => {}
        }
    }

    /// Everybody wants a place in the quota that is too small, at once; many do not wait for the end.
    fn storm(&mut self) {
        let visits = 10 + self.rng.below(50);
        self.note(&format!("{visits} agents are activated or ended at once"));
        self.count("quota storms");
        for _ in 0..visits {
            let Some((env, client)) = self.rng.pick(&self.clients).cloned() else { return };
            let (around, rng) = (self.around.clone(), self.world.sim.rng());
            let visit = self.storm.clone().surge(env.clone(), client, around, rng);
            drop(self.world.sim.spawn_on(&env, visit));
        }
    }

    /// Empties a node. It leaves when it is empty and another comes; else it stays.
    fn drain(&mut self, place: usize) {
        let agents = self.world.places[place].agents.lock().clone();
        let Some(agents) = agents.filter(|_| !self.world.places[place].paused) else { return };
        if !self.may_end(place, true) {
            return;
        }
        self.note(&format!("node {place} is drained"));
        self.count("drains begun");
        let zone = self.world.zone();
        let limit = self.rng.duration(SECOND / 10, DRAIN_MAX);
        let env = self.world.places[place].env.clone();
        let task = self.world.sim.spawn_on(&env, async move {
            let fleet = agents.fleet();
            drop(fleet.deactivate().await);
            let drained = fleet.drained(limit).await.is_ok();
            if !drained {
                // Given up half-way: it is a node like the others again, whatever was heard of its leaving.
                for _ in 0..REJOINS_MAX {
                    if let Ok(()) | Err(FleetError::NotInactive) = fleet.activate(&zone).await {
                        break;
                    }
                    sleep(fleet.env().as_ref(), SECOND / 10).await;
                }
            }
            drained
        });
        self.draining = true;
        self.set_scene();
        let drained = self.world.sim.run_until(limit + 10 * SECOND, task);
        self.draining = false;
        if drained == Some(Some(true)) {
            self.count("drains done");
            self.world.kill(place, End::Process);
            self.world.wipe(place);
            self.after(SECOND / 10, Mend::Restart(place));
        } else {
            self.count("drains given up");
        }
    }

    /// Lets `time` pass, and mends what is due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.world.sim.elapsed() + time;
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= end
        {
            let ((due, _), mend) = entry.remove_entry();
            self.run_to(due);
            self.mend(mend);
        }
        self.run_to(end);
    }

    fn set_scene(&self) {
        let cut = self.agenda.values().any(|mend| matches!(mend, Mend::Join(..)));
        let dead = self.world.places.iter().any(|place| !place.alive);
        self.world.set_scene(Scene { cut, dead, draining: self.draining, ..Scene::default() });
    }

    fn run_to(&self, time: Duration) {
        self.set_scene();
        let passed = time.saturating_sub(self.world.sim.elapsed());
        self.world.sim.run_for(passed);
    }

    fn after(&mut self, wait: Duration, mend: Mend) {
        self.events += 1;
        self.agenda.insert((self.world.sim.elapsed() + wait, self.events), mend);
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Restart(place) => {
                self.world.restart(place);
                self.cut_start_short(place);
            }
            Mend::CutShort(..) if self.around.calm.load(Ordering::Relaxed) => {}
            // Another may live there by now, or nobody.
            Mend::CutShort(place, _) if self.world.places[place].stranger => {}
            Mend::CutShort(place, end) => {
                self.world.kill(place, end);
                self.after(Duration::ZERO, Mend::Restart(place));
            }
            Mend::Resume(place) => self.world.set_paused(place, false),
            // Another may live there by now.
            Mend::Replace(place) if !self.world.places[place].stranger => {}
            Mend::Replace(place) => {
                self.world.kill(place, End::Process);
                self.world.restart(place);
            }
            Mend::Join(left, right) => self.world.sim.heal_between(&left, &right),
            Mend::Calm => self.world.sim.set_net_config(NetConfig::default()),
            Mend::Room(place) => {
                if let Some(disk) = &self.world.places[place].disk {
                    disk.set_bytes_max(None);
                }
                // What its disk refused, it does not try again: its operator starts it anew.
                self.world.kill(place, End::Process);
                self.world.restart(place);
            }
            Mend::Change(place, end) => {
                if let Some(disk) = &self.world.places[place].disk {
                    disk.fail_syncs(0);
                    disk.fail_writes(0);
                }
                self.world.kill(place, end);
                self.world.restart(place);
            }
        }
    }

    /// Ends all faults.
    pub(super) fn mend_all(&mut self) {
        self.note("everything is mended");
        self.around.calm.store(true, Ordering::Relaxed);
        for (_, mend) in std::mem::take(&mut self.agenda) {
            self.mend(mend);
        }
        self.world.sim.heal();
        self.world.sim.set_net_config(NetConfig::default());
    }
}
