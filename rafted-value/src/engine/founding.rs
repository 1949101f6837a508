//! First members of new groups, and of those that begin with what others had come to.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Clocks, Engine, Found};
use crate::error::GroupError;
use crate::group::{Group, Turn, panic_message};
use crate::id::{FOUNDER, GroupId, MemberId};
use crate::keepsake::Keepsake;
use crate::outputs::Outputs;
use crate::waiter::Waiter;

impl Engine {
    /// Tells whoever waits for the first member of a group once it is there.
    pub(super) fn answer_founder(
        &mut self,
        group: GroupId,
        made: Result<(), GroupError>,
        waiter: Waiter<Result<MemberId, GroupError>>,
        clocks: Clocks,
        out: &mut Outputs,
    ) {
        match made {
            Ok(()) => self.with(group, clocks, out, |group, turn| group.answer_founder(turn, waiter)),
            Err(error) => out.member(waiter, Err(error)),
        }
    }

    /// Founds a group, perhaps with a keepsake.
    pub(super) fn found(
        &mut self,
        found: &Found,
        keepsake: Option<&Keepsake>,
        clocks: Clocks,
        out: &mut Outputs,
    ) -> Result<(), GroupError> {
        found.config.validate().map_err(GroupError::InvalidConfig)?;
        let mut distinct = found.nodes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != found.nodes.len() {
            return Err(GroupError::InvalidConfig("a node is listed twice".into()));
        }
        let position = found
            .nodes
            .iter()
            .position(|node| *node == self.node)
            .ok_or_else(|| GroupError::InvalidConfig(format!("node {} is not in the list", self.node)))?;
        let own = MemberId(FOUNDER.0 + position as u64);
        if found.nodes.len() > 1 && self.groups.get(&found.group).is_some_and(|group| group.member() == own) {
            // The others were quicker: their leader has made this member already, and will give it its state.
            return Ok(());
        }
        if self.buried.contains_key(&found.group) {
            return Err(GroupError::AlreadyExists(found.group));
        }
        self.check_may_have(found.group)?;
        if let Some(mistake) = self.registry.mistake(&found.data) {
            return Err(GroupError::InvalidConfig(mistake.clone()));
        }
        let mut turn = turn!(self, clocks, out);
        let registry = &self.registry;
        let make = || Group::found(registry, found, keepsake, position, &mut turn);
        let group = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
            let reason = format!("its new value panicked: {}", panic_message(panic.as_ref()));
            Err(GroupError::Fenced { group: found.group, reason })
        })?;
        self.insert(found.group, group, clocks, out);
        Ok(())
    }
}
