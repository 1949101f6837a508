//! What the ledger of quotas shows to the harness of a simulation, and the fault that it can plant in it.

use raft_kv::rafted_value::sim::Mutation;

use crate::agent_id::QuotaName;
use crate::quota::QuotaUsage;

/// The ledger gives a place to whoever asks while there is one, and does not take it away from the others.
pub const RESERVE_NO_QUOTA: Mutation = Mutation::Above("reserve-no-quota");

/// What the ledger has come to with a command. Shown by [`show`](raft_kv::rafted_value::sim::show).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuotasShown {
    /// Every quota that has a limit, and how many agents it has and may get by places that are taken or leased.
    pub quotas: Vec<(QuotaName, QuotaUsage)>,
    /// Leases of places that are out.
    pub leases: u64,
}
