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

    /// What this node's member of a group has come to.
    pub(super) fn keepsake(&self, id: GroupId) -> Result<Option<Keepsake>, GroupError> {
        match self.group(id) {
            Ok(()) => {}
            Err(Missing::NoSuchGroup(_)) => return Ok(None),
            Err(missing) => return Err(missing.group_error()),
        }
        let group = &self.groups[&id];
        let made = catch_unwind(AssertUnwindSafe(|| group.keepsake())).unwrap_or_else(|panic| {
            Err(MachineError::Unsnapshotable(format!("it panicked: {}", panic_message(panic.as_ref()))))
        });
        made.map_err(|error| {
            tracing::error!(group = %id, %error, "no keepsake can be taken");
            GroupError::Fenced { group: id, reason: error.to_string() }
        })
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
