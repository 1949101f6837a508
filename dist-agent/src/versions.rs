//! Which versions of agent types the cluster has agreed on, as this node or client knows it.
//!
//! What is known here may be older than what the ledger says, and never newer: versions are only ever raised. So a caller
//! may always let an agent run as the version it knows of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft_kv::raft_fleet::{CallOptions, Fleet};
use raft_kv::rafted_value::env::{MonoTime, sleep, timeout};
use raft_kv::rafted_value::{Freshness, QueryError, encode};
use tokio::sync::Mutex as AsyncMutex;

use crate::agent_id::AgentTypeName;
use crate::agent_types::AgentTypes;
use crate::config::DistAgentConfig;
use crate::error::{QuotaError, StartError};
use crate::quota::{Join, LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply};
use crate::quotas::{decode, group, not_understood};

/// The ledger is asked anew for the sake of a call at most this often.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

type Agreed = BTreeMap<AgentTypeName, u32>;

/// The versions of the cluster.
pub(crate) struct Versions {
    /// Those of a node; none for a client.
    types: Option<AgentTypes>,
    agreed: Mutex<Arc<Agreed>>,
    /// When the ledger last answered for the sake of a call. Who asks holds it; others wait for what he is told.
    answered: AsyncMutex<Option<MonoTime>>,
}

impl Versions {
    fn new(types: Option<AgentTypes>) -> Self {
        Self { types, agreed: Mutex::default(), answered: AsyncMutex::default() }
    }

    /// Says what this node can run.
    ///
    /// # Errors
    ///
    /// When it cannot run what the cluster has agreed on, or the ledger does not answer.
    pub(crate) async fn join(
        fleet: &Fleet,
        config: &DistAgentConfig,
        types: AgentTypes,
    ) -> Result<Self, StartError> {
        let versions = Self::new(Some(types));
        let options = CallOptions { timeout: config.kv.creation_timeout, ..config.call };
        versions.say(fleet, &options).await?;
        Ok(versions)
    }

    /// Asks what is agreed, for a client.
    ///
    /// # Errors
    ///
    /// When the ledger does not answer.
    pub(crate) async fn ask(fleet: &Fleet, config: &DistAgentConfig) -> Result<Self, QuotaError> {
        let versions = Self::new(None);
        versions.look(fleet, &config.call).await?;
        Ok(versions)
    }

    /// The version that is agreed for a type, none where not every node knows the type; the ledger is asked anew where what
    /// is known is less than `needed`. Callers who come at once are told of one answer; where there is none, each asks in the
    /// time that is left to it.
    ///
    /// # Errors
    ///
    /// When the ledger does not answer.
    pub(crate) async fn of(
        &self,
        fleet: &Fleet,
        options: &CallOptions,
        agent_type: &str,
        needed: u32,
    ) -> Result<Option<u32>, QuotaError> {
        let env = fleet.env();
        let (came, known) = (env.now(), || self.known().get(agent_type).copied());
        if let Some(enough) = known().filter(|known| *known >= needed) {
            return Ok(Some(enough));
        }
        let deadline = came + options.timeout;
        let Some(mut answered) = timeout(env.as_ref(), options.timeout, self.answered.lock()).await else {
            let limit_ms = u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX);
            return Err(QueryError::Timeout { limit_ms }.into());
        };
        let is_new = |at: MonoTime| at >= came || came.since(at) < ASK_INTERVAL;
        if !answered.is_some_and(is_new) {
            self.look(fleet, &options.with_timeout(deadline.since(env.now()))).await?;
            *answered = Some(env.now());
        }
        Ok(known())
    }

    /// Looks again and again, so that what is known is never old for long. A node sees to it that nodes which are gone hold
    /// up no version, and that it is known itself.
    pub(crate) async fn keep(self: Arc<Self>, fleet: Fleet, options: CallOptions, interval: Duration) {
        loop {
            sleep(fleet.env().as_ref(), interval).await;
            match self.look(&fleet, &options).await {
                Ok(nodes) if self.types.is_some() && is_changed(&fleet, &nodes) => {
                    match self.say(&fleet, &options).await {
                        Err(error @ StartError::Build(_)) => {
                            tracing::error!(%error, "this node must be replaced by one of a later build");
                        }
                        Err(error) => tracing::debug!(%error, "what this node can run was not said"),
                        Ok(()) => {}
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the versions of agent types were not asked"),
            }
        }
    }

    fn known(&self) -> Arc<Agreed> {
        Arc::clone(&self.agreed.lock())
    }

    async fn say(&self, fleet: &Fleet, options: &CallOptions) -> Result<(), StartError> {
        let types = self.types.as_ref().map(AgentTypes::spans).unwrap_or_default();
        let cluster = fleet.cluster();
        let listed = cluster.nodes().keys().map(|node| node.0).collect();
        let join = Join { node: fleet.node().0, revision: cluster.revision(), listed, types };
        let reply = fleet.command(&group(), 0, encode(&LedgerCommand::Join(join)), options).await;
        match decode(&reply.map_err(QuotaError::from)?)? {
            LedgerReply::Joined(agreed) => self.take(agreed),
            LedgerReply::Mismatch(mismatch) => return Err(mismatch.into()),
            other => return Err(not_understood(&other).into()),
        }
        Ok(())
    }

    /// Asks what is agreed; the nodes that have said what they can run.
    async fn look(&self, fleet: &Fleet, options: &CallOptions) -> Result<Vec<u64>, QuotaError> {
        let query = encode(&LedgerQuery::Versions);
        let answer = fleet.query(&group(), Freshness::Latest, query, options).await?;
        match decode(&answer)? {
            LedgerAnswer::Versions { agreed, nodes } => {
                self.take(agreed);
                Ok(nodes)
            }
            other => Err(not_understood(&other)),
        }
    }

    fn take(&self, agreed: Agreed) {
        if let Some(types) = &self.types {
            types.agree(&agreed);
        }
        let mut known = self.agreed.lock();
        // An answer that comes late takes nothing back.
        if **known != agreed && known.iter().all(|(name, version)| agreed.get(name) >= Some(version)) {
            *known = Arc::new(agreed);
        }
    }
}

/// Whether the ledger should hear of the cluster's nodes anew.
fn is_changed(fleet: &Fleet, nodes: &[u64]) -> bool {
    let cluster = fleet.cluster();
    let is_listed = |node: &u64| cluster.nodes().keys().any(|listed| listed.0 == *node);
    !nodes.contains(&fleet.node().0) || !nodes.iter().all(is_listed)
}
