//! Which agents there are.

use raft_kv::ListPosition;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::agent_id::{AgentId, AgentIdRef, AgentKey, AgentTypeName, QuotaName};
use crate::error::ListError;
use crate::node::{DistAgent, keyspace};

/// Where a list of agents goes on; the default one is its beginning. It may be kept, and sent to somebody else.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct AgentPosition(ListPosition);

/// Some agents, and where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentPage {
    /// The agents of this page, in no order that means anything.
    pub agents: Vec<AgentId>,
    /// Where the next page begins; `None` at the end. A next page may turn out to be empty.
    pub next: Option<AgentPosition>,
}

impl DistAgent {
    /// The agents of a type in a quota whose keys begin with `prefix`, at most `agents_max` of them, from a position on.
    ///
    /// An agent that is active from the first page to the last is given once; one that is activated or ends meanwhile may
    /// be given or not.
    ///
    /// # Errors
    ///
    /// When the quota or the type cannot be, or a shard does not answer in time; the same page may be asked for again.
    pub async fn list_agents<A: Agent>(
        &self,
        quota: &str,
        prefix: &str,
        from: &AgentPosition,
        agents_max: u32,
    ) -> Result<AgentPage, ListError> {
        let (quota, agent_type) = (QuotaName::new(quota)?, AgentTypeName::new(A::TYPE)?);
        let store_prefix = [quota.as_str(), agent_type.as_str(), prefix].join("\0");
        let mut agents = Vec::new();
        let mut position = from.0;
        loop {
            let left = agents_max.saturating_sub(agents.len() as u32);
            let page = self.kv().scan_keys(keyspace(), store_prefix.as_bytes(), &position, left).await?;
            agents.extend(page.keys.iter().filter_map(|key| {
                let key = AgentKey::new(AgentIdRef::parse(key).ok()?.key).ok()?;
                Some(AgentId { quota: quota.clone(), agent_type: agent_type.clone(), key })
            }));
            match page.next {
                Some(next) if agents.len() < agents_max.max(1) as usize => position = next,
                next => return Ok(AgentPage { agents, next: next.map(AgentPosition) }),
            }
        }
    }
}
