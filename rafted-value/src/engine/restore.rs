//! Groups that begin anew on this node.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::missing::Missing;
use super::{Clocks, Engine};
use crate::error::GroupError;
use crate::group::recover::KeptMember;
use crate::group::{Group, MachineError, Turn, panic_message};
use crate::id::{GroupId, MemberId};
use crate::keepsake::Keepsake;
use crate::outputs::Outputs;
use crate::restore::not_restored;

impl Engine {
    /// Whether this node may get a first member of a group.
    pub(super) fn check_may_have(&self, group: GroupId) -> Result<(), GroupError> {
        if self.groups.contains_key(&group) || self.fenced.contains_key(&group) {
            return Err(GroupError::AlreadyExists(group));
        }
        if self.stopped {
            return Err(GroupError::Unavailable);
        }
        match &self.disk_failed {
            Some(reason) => Err(GroupError::Fenced { group, reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// What this node's member of a group has come to, which takes part in nothing from then on: what it acknowledged
    /// later would not be in it.
    pub(super) fn retire(
        &mut self,
        id: GroupId,
        clocks: Clocks,
        out: &mut Outputs,
    ) -> Result<Option<Keepsake>, GroupError> {
        if let Some(taken) = self.retired.get(&id) {
            return Ok(taken.clone());
        }
        match self.group(id) {
            Ok(()) => {}
            Err(Missing::NoSuchGroup(_)) => return Ok(None),
            Err(missing) => return Err(missing.group_error()),
        }
        let group = &self.groups[&id];
        let made = catch_unwind(AssertUnwindSafe(|| group.keepsake())).unwrap_or_else(|panic| {
            Err(MachineError::Unsnapshotable(format!("it panicked: {}", panic_message(panic.as_ref()))))
        });
        let keepsake = made.map_err(|error| {
            tracing::error!(group = %id, %error, "no keepsake can be taken");
            GroupError::Fenced { group: id, reason: error.to_string() }
        })?;
        tracing::info!(group = %id, member = %group.member(), "the member retires");
        let kept = group.all_records(&self.config);
        let reason = "the group is over, and what it had come to is kept".to_owned();
        self.put_aside(id, reason, kept, clocks, out);
        self.retired.insert(id, keepsake.clone());
        Ok(keepsake)
    }

    /// Makes the only member of a group that begins anew with what a member of it had kept.
    pub(super) fn restore(
        &mut self,
        id: GroupId,
        kept: KeptMember,
        clocks: Clocks,
        out: &mut Outputs,
    ) -> Result<(), GroupError> {
        self.check_may_have(id)?;
        let newest = self.buried.get(&id).copied();
        if newest == Some(MemberId(u64::MAX)) {
            return Err(GroupError::AlreadyExists(id));
        }
        let mut turn = turn!(self, clocks, out);
        let (node, registry) = (self.node, &self.registry);
        let make = || Group::restore_alone(id, kept, node, newest, registry, &mut turn);
        let made = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
            Err(MachineError::Unsnapshotable(format!("it panicked: {}", panic_message(panic.as_ref()))))
        });
        let group = made.map_err(|error| not_restored(id, error))?;
        self.insert(id, group, clocks, out);
        Ok(())
    }
}
