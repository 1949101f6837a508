//! What the whole cluster shares, whichever node or client is asked: how long a tick is.
//!
//! It travels with each command, so that members need not know it; but if callers differed, the timeouts of one agent would
//! depend on who called it last. So the first node of a cluster says it to the ledger, and everybody takes it from there.

use std::time::Duration;

use raft_kv::raft_fleet::{CallOptions, Fleet};
use raft_kv::rafted_value::{Freshness, encode};

use crate::config::DistAgentConfig;
use crate::error::QuotaError;
use crate::quota::{LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply};
use crate::quotas::{decode, group, not_understood};

/// Says what this node's settings say, and takes what the cluster says into them. A node whose own are other ones logs
/// that: it could do no good by staying away.
pub(crate) async fn say(fleet: &Fleet, config: &mut DistAgentConfig) -> Result<(), QuotaError> {
    let own_ms = config.tick_ms();
    let options = CallOptions { timeout: config.kv.creation_timeout, ..config.call };
    let command = encode(&LedgerCommand::Agree { tick_ms: own_ms });
    let tick_ms = match decode(&fleet.command(&group(), 0, command, &options).await?)? {
        LedgerReply::Agreed { tick_ms } => tick_ms,
        other => return Err(not_understood(&other)),
    };
    if tick_ms != own_ms {
        tracing::warn!(
            tick_ms,
            own_ms,
            "a tick of the cluster has another length than this node's tick_interval says; that of the cluster counts"
        );
    }
    take(tick_ms, config);
    Ok(())
}

/// Takes what the cluster says into a client's settings.
pub(crate) async fn ask(fleet: &Fleet, config: &mut DistAgentConfig) -> Result<(), QuotaError> {
    let query = encode(&LedgerQuery::Agreed);
    let answer = fleet.query(&group(), Freshness::Latest, query, &config.call).await?;
    match decode(&answer)? {
        LedgerAnswer::Agreed { tick_ms: Some(tick_ms) } => take(tick_ms, config),
        // A node says it before the agents' keyspace is there.
        LedgerAnswer::Agreed { tick_ms: None } => {}
        other => return Err(not_understood(&other)),
    }
    Ok(())
}

fn take(tick_ms: u32, config: &mut DistAgentConfig) {
    config.tick_interval = Duration::from_millis(tick_ms.into());
}
