//! Raft's invariants, one file each, checked at every step of every member of every group of a seed.
//!
//! Members tell what they do (`rafted_value::sim::watch`), so that nothing depends on when somebody looks. Whatever is
//! derived from it is kept here: the log of each member as a chain of hashes, and the one chain of what is committed.

mod chronicle;
mod committed_on_a_quorum;
mod leader_completeness;
mod log;
mod log_matching;
mod no_lease_beside_a_newer_leader;
mod no_step_back;
mod one_leader_a_term;
mod one_vote_a_term;
mod promises_are_kept;
mod rare;
mod state_machine_safety;
mod words_are_kept;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rafted_value::env::{Env, MonoTime};
use rafted_value::sim::{Deed, SimEnv, Watching, watch};
use rafted_value::{GroupId, MemberId, NodeId};

use self::chronicle::Chronicle;
pub(crate) use self::rare::{Moving, Scene};
use super::tally::Tally;

/// Watches all members of a seed. Clones are handles of the same one.
#[derive(Clone, Default)]
pub(crate) struct Steps(Rc<RefCell<Seen>>);

#[derive(Default)]
struct Seen {
    groups: BTreeMap<GroupId, Chronicle>,
    clocks: Clocks,
    scene: Scene,
    moving: BTreeMap<GroupId, Moving>,
    complaint: Option<String>,
    deeds: u64,
}

/// What the clocks of the nodes that live show.
#[derive(Default)]
pub(crate) struct Clocks(BTreeMap<NodeId, Arc<SimEnv>>);

impl Clocks {
    /// Whether a time has not come yet on a node; false where the node is dead.
    fn is_before(&self, node: NodeId, time: MonoTime) -> bool {
        self.0.get(&node).is_some_and(|env| env.now() < time)
    }
}

impl Steps {
    /// Begins to watch, until what is returned is dropped.
    pub(crate) fn watch(&self) -> Watching {
        let seen = self.0.clone();
        watch(move |group, member, deed| seen.borrow_mut().see(group, member, deed))
    }

    /// A node lives from now on.
    pub(crate) fn node_begins(&self, env: &Arc<SimEnv>) {
        self.0.borrow_mut().clocks.0.insert(env.node(), env.clone());
    }

    /// A node has ended: whatever its members held but their disk is gone.
    pub(crate) fn node_ends(&self, node: NodeId) {
        let seen = &mut *self.0.borrow_mut();
        seen.clocks.0.remove(&node);
        seen.groups.values_mut().for_each(|chronicle| chronicle.node_ends(node));
    }

    /// What goes on around the groups from now on.
    pub(crate) fn set_scene(&self, scene: Scene) {
        self.0.borrow_mut().scene = scene;
    }

    /// What moves from or to a group from now on.
    pub(crate) fn set_moving(&self, group: GroupId, moving: Option<Moving>) {
        let all = &mut self.0.borrow_mut().moving;
        match moving {
            Some(moving) => all.insert(group, moving),
            None => all.remove(&group),
        };
    }

    /// # Errors
    ///
    /// The first thing that did not hold.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.0.borrow().complaint.clone().map_or(Ok(()), Err)
    }

    /// Adds what was seen.
    pub(crate) fn read_out(&self, tally: &mut Tally) {
        let seen = self.0.borrow();
        tally.add("deeds of members checked", seen.deeds);
        let entries: u64 = seen.groups.values().map(Chronicle::entries_committed).sum();
        tally.add("entries committed", entries);
        for chronicle in seen.groups.values() {
            chronicle.rare.read_out(tally);
        }
    }
}

impl Seen {
    fn see(&mut self, group: GroupId, member: MemberId, deed: Deed) {
        self.deeds += 1;
        if self.complaint.is_some() {
            return;
        }
        let chronicle = self.groups.entry(group).or_default();
        let scene = Scene { moving: self.moving.get(&group).copied(), ..self.scene };
        if let Err(why) = chronicle.take_in(member, deed, scene, &self.clocks) {
            self.complaint = Some(format!("group {group}, {member}: {why}"));
        }
    }
}
