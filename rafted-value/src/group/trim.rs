//! What an idle group gives back: room that raft and the log set aside for more than they hold.
//!
//! Measured over three members of a group in which nothing happens: raft keeps eight bytes for every append that may be
//! on its way, to every member, on followers too (1,200 bytes a member), and the list of entries that are not stored yet
//! as long as it ever was (400 bytes).

use std::collections::BTreeMap;

use super::{Group, TRIM_TICKS};

impl Group {
    /// Something was added: there may be more to come.
    pub(super) fn grew(&mut self) {
        self.trim_ticks = TRIM_TICKS;
    }

    /// Whether nothing was added for a while.
    pub(super) fn idles(&self) -> bool {
        self.trim_ticks == 0
    }

    /// Gives back what is set aside, once, when nothing was added for a while.
    pub(super) fn trim_if_due(&mut self) {
        if self.trim_ticks > 0 {
            self.trim_ticks -= 1;
            if self.trim_ticks == 0 {
                self.trim();
            }
        }
    }

    /// Gives back what raft has set aside for appends to members that it has just got to know, on followers too: a leader
    /// makes room when it sends some. Groups that are founded together would else hold all of it at once, and what a
    /// process has once held it seldom gives back to the system.
    pub(super) fn forgo_append_windows(&mut self) {
        self.raw.raft.maybe_free_inflight_buffers();
    }

    pub(super) fn trim(&mut self) {
        self.trim_ticks = 0;
        self.forgo_append_windows();
        let unstable = &mut self.raw.raft.raft_log.unstable.entries;
        if unstable.is_empty() {
            *unstable = Vec::new();
        }
        self.raw.mut_store().trim();
        self.incoming.shrink_to_fit();
        self.proposals.shrink_to_fit();
        self.reads.shrink_to_fit();
        if let Some(machine) = &self.machine {
            self.routes.retain(|member, _| !machine.nodes().contains_key(member));
        }
        give_back(&mut self.routes);
        give_back(&mut self.snapshots_sent);
        give_back(&mut self.outgoing);
    }
}

/// A tree that was emptied keeps its root.
fn give_back<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    if map.is_empty() {
        *map = BTreeMap::new();
    }
}
