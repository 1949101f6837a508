//! Why a request finds no group, as each kind of caller is told.

use crate::error::{GroupError, NotApplied, QueryError};
use crate::id::GroupId;

/// Why a group is not here.
pub(super) enum Missing {
    NoSuchGroup(GroupId),
    Fenced(GroupId, String),
    Stopped,
}

impl Missing {
    pub(super) fn not_applied(self) -> NotApplied {
        match self {
            Missing::NoSuchGroup(group) => NotApplied::NoSuchGroup(group),
            Missing::Fenced(group, reason) => NotApplied::Fenced { group, reason },
            Missing::Stopped => NotApplied::ShuttingDown,
        }
    }

    pub(super) fn query_error(self) -> QueryError {
        match self {
            Missing::NoSuchGroup(group) => QueryError::NoSuchGroup(group),
            Missing::Fenced(group, reason) => QueryError::Fenced { group, reason },
            Missing::Stopped => QueryError::ShuttingDown,
        }
    }

    pub(super) fn group_error(self) -> GroupError {
        match self {
            Missing::NoSuchGroup(group) => GroupError::NoSuchGroup(group),
            Missing::Fenced(group, reason) => GroupError::Fenced { group, reason },
            Missing::Stopped => GroupError::Unavailable,
        }
    }
}
