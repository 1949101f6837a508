//! A node as it presents itself to others.

use rafted_value::NodeId;
use serde::{Deserialize, Serialize};

use crate::group_name::{NameError, check_name, check_word};

/// Who a node is in its present life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id; a node that restarts empty has a new one.
    pub node: NodeId,
    /// The name its operator gave it; one node of a cluster at a time has it.
    pub name: String,
    /// The zone (rack, data centre) over which members are spread.
    pub zone: String,
    /// Where others reach it.
    pub address: String,
}

impl NodeInfo {
    /// Says what is wrong with it, if anything; what comes from a peer is checked before it is used.
    ///
    /// # Errors
    ///
    /// When a text is empty, too long, or holds characters that it may not.
    pub fn validate(&self) -> Result<(), NameError> {
        check_name("node name", &self.name)?;
        check_word("zone", &self.zone)?;
        check_word("address", &self.address)
    }
}
