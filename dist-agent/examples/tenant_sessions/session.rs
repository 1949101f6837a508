//! A session of a user of a tenant.

use std::collections::BTreeMap;

use dist_agent::{AgentContext, OnTick, QueryContext, agent};
use serde::{Deserialize, Serialize};

/// A session ends after so many ticks in which nothing was written to it.
pub(crate) const IDLE_TICKS: u32 = 2;

/// What is remembered of a user while they are there.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    values: BTreeMap<String, String>,
    began_at_ms: u64,
}

#[agent(name = "session")]
impl Session {
    /// Writes a value; what was there before.
    #[command(tag = 1)]
    pub(crate) fn set(
        &mut self,
        context: &mut AgentContext<'_>,
        name: String,
        value: String,
    ) -> Option<String> {
        if context.revision() == 0 {
            self.began_at_ms = context.now_ms();
            // Said once: each further command starts the count anew.
            context.on_tick(OnTick::Deactivate { ticks: IDLE_TICKS });
        }
        self.values.insert(name, value)
    }

    /// Ends the session.
    #[command(tag = 2)]
    pub(crate) fn log_out(&mut self, context: &mut AgentContext<'_>) {
        context.deactivate();
    }

    #[query(tag = 1)]
    pub(crate) fn read(&self, name: String) -> Option<String> {
        self.values.get(&name).cloned()
    }

    #[query(tag = 2)]
    pub(crate) fn describe(&self, context: &QueryContext<'_>) -> String {
        format!("{} of {}: {} values", context.key(), context.quota(), self.values.len())
    }
}
