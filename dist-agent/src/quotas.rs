//! What an operator says and asks of quotas.

use raft_kv::raft_fleet::GroupName;
use raft_kv::rafted_value::{Freshness, encode};
use serde::de::DeserializeOwned;

use crate::agent_id::QuotaName;
use crate::error::QuotaError;
use crate::node::DistAgent;
use crate::quota::{GROUP, LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply, QuotaLimit, QuotaUsage};

/// Names that are asked for at a time.
const PAGE: u32 = 1_000;

impl DistAgent {
    /// Makes a quota, or changes the limit of one. Agents can be activated in it from now on; a lower limit ends none that
    /// are active. Another node that has just activated an agent in it may go on without a look at its new limit: for two
    /// seconds more where it was unlimited, else for half a second.
    ///
    /// In an unlimited quota no places are taken. When it gets a limit, it has none for anybody until every shard has
    /// counted what was activated up to two seconds after that, which takes about three seconds: activations wait so long, and those
    /// whose time is over before are told that it is full. What was under way for longer than that is not waited for, and may
    /// pass the limit.
    ///
    /// # Errors
    ///
    /// When the name cannot be, there are too many quotas, or the ledger does not answer in time.
    pub async fn put_quota(&self, quota: &str, limit: impl Into<QuotaLimit>) -> Result<(), QuotaError> {
        let quota = QuotaName::new(quota)?;
        let command = LedgerCommand::Put { quota: quota.clone(), limit: limit.into() };
        let reply = self.change_quotas(&command).await;
        // Whoever asked for it here goes by it from now on, and by nothing that was given before.
        self.desk().forget(&quota);
        match reply? {
            LedgerReply::Done => Ok(()),
            LedgerReply::TooManyQuotas { limit } => Err(QuotaError::TooMany { limit }),
            other => Err(not_understood(&other)),
        }
    }

    /// Deletes a quota. No agent can be activated in it from now on (by another node that has just activated one: for half a
    /// second more, two if it was unlimited), and those that are active end within seconds. A quota that is put under the same
    /// name later is another one, which no late attempt of this call deletes.
    ///
    /// # Errors
    ///
    /// [`QuotaError::NotFound`] if there is none; when the ledger does not answer in time.
    pub async fn delete_quota(&self, quota: &str) -> Result<(), QuotaError> {
        let quota = QuotaName::new(quota)?;
        let generation = match self.ask_quotas(&LedgerQuery::Generation { quota: quota.clone() }).await? {
            LedgerAnswer::Generation(Some(generation)) => generation,
            LedgerAnswer::Generation(None) => return Err(QuotaError::NotFound(quota)),
            other => return Err(not_understood(&other)),
        };
        // This one and no other: the reply may be lost, and another have the name by the time that the command comes again.
        let command = LedgerCommand::DeleteThis { quota: quota.clone(), generation };
        let reply = self.change_quotas(&command).await;
        self.desk().forget(&quota);
        match reply? {
            // It is gone, by this call or by one beside it.
            LedgerReply::Done | LedgerReply::NoSuchQuota => Ok(()),
            other => Err(not_understood(&other)),
        }
    }

    /// The names of all quotas, in order.
    ///
    /// # Errors
    ///
    /// When the ledger does not answer in time.
    pub async fn list_quotas(&self) -> Result<Vec<QuotaName>, QuotaError> {
        let mut names = Vec::new();
        loop {
            let query = LedgerQuery::List { after: names.last().cloned(), max: PAGE };
            let LedgerAnswer::List(page) = self.ask_quotas(&query).await? else {
                return Err(QuotaError::Answer("no list".to_owned()));
            };
            if page.is_empty() {
                return Ok(names);
            }
            names.extend(page);
        }
    }

    /// How full a quota is. Every agent that was activated from here before is counted, and every one that was activated
    /// elsewhere, apart from those of the last few hundredths of a second. In an unlimited quota, of which no place is taken,
    /// agents are counted by the shards alone: every [`quota_interval`](crate::DistAgentConfig::quota_interval).
    ///
    /// # Errors
    ///
    /// [`QuotaError::NotFound`] if there is none; when the ledger does not answer in time.
    pub async fn quota_usage(&self, quota: &str) -> Result<QuotaUsage, QuotaError> {
        let quota = QuotaName::new(quota)?;
        self.desk().flush().await;
        match self.ask_quotas(&LedgerQuery::Usage { quota: quota.clone() }).await? {
            LedgerAnswer::Usage(Some(usage)) => Ok(usage),
            LedgerAnswer::Usage(None) => Err(QuotaError::NotFound(quota)),
            other => Err(not_understood(&other)),
        }
    }

    async fn change_quotas(&self, command: &LedgerCommand) -> Result<LedgerReply, QuotaError> {
        let reply = self.fleet().command(&group(), 0, encode(command), &self.config().call).await?;
        decode(&reply)
    }

    async fn ask_quotas(&self, query: &LedgerQuery) -> Result<LedgerAnswer, QuotaError> {
        let options = &self.config().call;
        let answer = self.fleet().query(&group(), Freshness::Latest, encode(query), options).await?;
        decode(&answer)
    }
}

pub(crate) fn group() -> GroupName {
    GroupName::new(GROUP).expect("a short name")
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, QuotaError> {
    postcard::from_bytes(bytes).map_err(|error| QuotaError::Answer(error.to_string()))
}

pub(crate) fn not_understood(answer: &impl std::fmt::Debug) -> QuotaError {
    QuotaError::Answer(format!("{answer:?}"))
}
