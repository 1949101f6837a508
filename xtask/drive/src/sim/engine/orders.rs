//! What an operator orders in the middle of faults: leaderships that move, orders that are taken back, new settings.

use std::time::Duration;

use rafted_value::{GroupConfig, GroupId, MemberId};

use super::plan::{GroupPlan, draw_group_config, drift_covered_ppm, ms, one_of};
use super::run::{Event, Run};

impl Run<'_> {
    /// Hands a leadership over: in peace, to one that is stopped, or from a leader that hears nothing of it. Half of
    /// the orders are taken back or replaced while their messages are under way.
    pub(super) fn transfer(&mut self) {
        let group = one_of(&mut self.rng, &self.plan.groups);
        let Some((place, leader)) = self.cluster.leader(group.id) else { return };
        let own = leader.status.member;
        let others = leader.status.members.iter().filter(|of| of.member != own);
        let others: Vec<_> = others.map(|of| (of.member, of.node)).collect();
        let Some(&(to, node)) = self.rng.pick(&others) else { return };
        let promise = ms(group.config.promise_ms.into());
        self.order(place, group.id, Some(to));
        match self.rng.below(4) {
            0 => {
                if let Some(target) = self.cluster.place_of(node) {
                    let length = self.rng.duration(ms(1), promise);
                    self.cluster.set_paused(target, true);
                    self.after(length, Event::Resume(node));
                }
            }
            1 => {
                // The order leaves, and no word of what comes of it gets back.
                let here = vec![self.cluster.places[place].address.clone()];
                let mut rest = self.addresses(false);
                rest.retain(|address| *address != here[0]);
                self.cluster.sim.partition_one_way(&rest, &here);
                let length = self.rng.duration(promise / 2, 2 * promise);
                self.after(length, Event::Mend(here, rest));
            }
            _ => {}
        }
        for eighth in 1..16 {
            self.after(promise * eighth / 8, Event::Glance);
        }
        if self.rng.chance(0.5) {
            let wait = self.rng.duration(Duration::ZERO, promise);
            let (instead, replaced) = (one_of(&mut self.rng, &others).0, self.rng.chance(0.3));
            self.after(wait, Event::Order(place, group.id, replaced.then_some(instead)));
        }
    }

    /// Gives a group other settings, whose margin covers how far the clocks of this seed run apart.
    pub(super) fn configure(&mut self) {
        let GroupPlan { id: group, config: GroupConfig { durability, .. }, .. } =
            one_of(&mut self.rng, &self.plan.groups);
        let Some((place, _)) = self.cluster.leader(group) else { return };
        let config = GroupConfig { durability, ..draw_group_config(&mut self.rng) };
        let Some(life) = &self.cluster.places[place].life else { return };
        if drift_covered_ppm(&config) < self.plan.drift_ppm_max {
            return;
        }
        let (host, env, new) = (life.host.clone(), life.env.clone(), config.clone());
        drop(self.cluster.sim.spawn_on(&env, async move {
            drop(host.change_config(GroupId(group), new).await);
        }));
        self.note(&format!("group {group}: {config:?}"));
        self.count("changes of settings ordered");
    }

    /// Gives an order to the node at a place, whoever leads by now; `None` takes the last one back.
    pub(super) fn order(&mut self, place: usize, group: u64, to: Option<MemberId>) {
        let Some(life) = &self.cluster.places[place].life else { return };
        let host = life.host.clone();
        drop(self.cluster.sim.spawn_on(&life.env, async move {
            drop(host.replace_leader(GroupId(group), to).await);
        }));
        self.note(&format!("group {group}: the leadership at {place} is to go to {to:?}"));
        self.count(if to.is_some() { "transfers ordered" } else { "transfers taken back" });
    }
}
