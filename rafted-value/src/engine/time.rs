//! What an engine does because time has passed: groups that are due, and loops of other nodes that may be.

use super::{Clocks, Engine};
use crate::env::MonoTime;
use crate::id::GroupId;
use crate::neighbours::{LoopId, LoopMessage};
use crate::outputs::Outputs;

impl Engine {
    pub(super) fn tick(&mut self, clocks: Clocks, out: &mut Outputs) {
        let limit = self.config.uninitialised_max;
        while let Some((time, entered)) = self.timers.take_due(clocks.now) {
            for id in entered {
                // It may be another one by now, or have been entered for an earlier time since.
                if !self.groups.get_mut(&id).is_some_and(|group| group.leave_timer(time)) {
                    continue;
                }
                self.with(id, clocks, out, |group, turn| group.tick(turn));
                if self.groups.get(&id).is_some_and(|group| group.is_abandoned(clocks.now, limit)) {
                    tracing::info!(group = %id, "a member that never got its state is dropped");
                    self.groups.remove(&id);
                }
            }
        }
    }

    /// Tells the loops that quiet groups are shared with that this one turns, and wakes the groups of those that do not.
    pub(super) fn keep_company(&mut self, clocks: Clocks, out: &mut Outputs) {
        if self.neighbours.is_empty() || clocks.now < self.next_beat {
            return;
        }
        let every = u64::try_from(self.config.loop_beat.as_nanos()).unwrap_or(u64::MAX).max(1);
        // All loops of a node speak at the same instants, so that what they say travels together.
        self.next_beat = MonoTime::from_nanos((clocks.now.nanos() / every + 1) * every);
        let silent = self.neighbours.silent(clocks.now, self.config.loop_silence_max);
        self.doubt(&silent, clocks, out);
        for (node, to) in self.neighbours.all() {
            out.beats.push((node, LoopMessage::Beat { from: self.id, to }));
        }
    }

    /// Wakes the groups that lean on any of these loops.
    pub(super) fn doubt(&mut self, loops: &[LoopId], clocks: Clocks, out: &mut Outputs) {
        let heard = loops.iter().filter_map(|id| Some((*id, self.neighbours.heard(*id)?)));
        let heard: Vec<(LoopId, MonoTime)> = heard.collect();
        if heard.is_empty() {
            return;
        }
        let leaning = self.groups.iter().filter_map(|(id, group)| {
            heard.iter().find(|(lean, _)| group.leans_on(*lean)).map(|(_, heard)| (*id, *heard))
        });
        let leaning: Vec<(GroupId, MonoTime)> = leaning.collect();
        tracing::info!(node = %self.node, ?loops, groups = leaning.len(), "loops are in doubt; their quiet groups wake");
        metrics::counter!("rafted_value_loops_doubted_total").increment(heard.len() as u64);
        for (group, heard) in leaning {
            self.with(group, clocks, out, |group, turn| group.doubt(turn, heard));
        }
    }
}
