//! Asks the member of a group on a given node, this one or another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::env::Env;
use crate::error::{CommandError, GroupError, NotApplied, QueryError, Unknown};
use crate::id::{GroupId, MemberId, NodeId};
use crate::request::{Command, Freshness};
use crate::service::{CommandReply, GROUP_SERVICE, GroupRequest, MemberReply, QueryReply};
use crate::transport::{CallError, Lane, SendError};

/// Asks members of groups on any node through the transport; needs no [`Host`](crate::Host) of its own.
#[derive(Clone)]
pub struct GroupCaller {
    env: Arc<dyn Env>,
}

impl GroupCaller {
    /// A caller that goes through this door.
    pub fn new(env: Arc<dyn Env>) -> Self {
        Self { env }
    }

    /// Sends a command to the member of `group` on `node`, once.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotApplied`] if this attempt surely changed nothing, else [`CommandError::Unknown`].
    pub async fn command_at(
        &self,
        node: NodeId,
        group: GroupId,
        command: &Command,
        limit: Duration,
    ) -> Result<Bytes, CommandError> {
        let request = GroupRequest::Command { group, command: command.clone() };
        match self.call(node, &request, limit).await {
            Ok(reply) => match decode::<CommandReply>(&reply) {
                Ok(result) => result,
                Err(reason) => Err(Unknown::ConnectionLost(reason).into()),
            },
            Err(CallError::Timeout { limit_ms }) => Err(Unknown::Timeout { limit_ms }.into()),
            // It would be so at every other node too: to try again, as after other messages that were not sent, is idle.
            Err(CallError::NotSent(SendError::TooLarge { bytes, limit_bytes })) => {
                let (bytes, limit_bytes) = (bytes as u64, limit_bytes as u64);
                Err(NotApplied::TooLarge { bytes, limit_bytes }.into())
            }
            Err(error) if error.surely_not_handled() => {
                Err(NotApplied::Unreachable(error.to_string()).into())
            }
            Err(error) => Err(Unknown::ConnectionLost(error.to_string()).into()),
        }
    }

    /// Asks the member of `group` on `node`, once.
    ///
    /// # Errors
    ///
    /// When it has no answer, or none comes in time.
    pub async fn query_at(
        &self,
        node: NodeId,
        group: GroupId,
        freshness: Freshness,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, QueryError> {
        let request = GroupRequest::Query { group, freshness, payload };
        match self.call(node, &request, limit).await {
            Ok(reply) => match decode::<QueryReply>(&reply) {
                Ok(result) => result,
                Err(reason) => Err(QueryError::Unreachable(reason)),
            },
            Err(CallError::Timeout { limit_ms }) => Err(QueryError::Timeout { limit_ms }),
            Err(CallError::NotSent(SendError::TooLarge { bytes, limit_bytes })) => {
                Err(QueryError::TooLarge { bytes: bytes as u64, limit_bytes: limit_bytes as u64 })
            }
            Err(error) => Err(QueryError::Unreachable(error.to_string())),
        }
    }

    /// Asks the member on `node` for a change of its group's membership, once.
    pub(crate) async fn change_at(
        &self,
        node: NodeId,
        request: &GroupRequest,
        limit: Duration,
    ) -> Result<MemberId, GroupError> {
        match self.call(node, request, limit).await {
            Ok(reply) => match decode::<MemberReply>(&reply) {
                Ok(result) => result,
                Err(reason) => Err(GroupError::Malformed(reason)),
            },
            Err(error) if error.surely_not_handled() => Err(GroupError::Unreachable(error.to_string())),
            Err(_) => Err(GroupError::Unknown(request.group())),
        }
    }

    async fn call(&self, node: NodeId, request: &GroupRequest, limit: Duration) -> Result<Bytes, CallError> {
        let payload = crate::data::encode(request);
        self.env.transport().call(node, Lane::Normal, GROUP_SERVICE, payload, limit).await
    }
}

fn decode<T: DeserializeOwned>(reply: &[u8]) -> Result<T, String> {
    postcard::from_bytes(reply).map_err(|error| format!("the reply does not decode: {error}"))
}
