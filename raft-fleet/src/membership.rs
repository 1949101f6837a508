//! What a node's directory remembers of the cluster it belongs to, so that it comes back to that one and founds no other.
//!
//! It is written once the node knows its cluster and before the host opens the directory, which is what gives the
//! directory its node id. So a node that dies while a cluster is formed keeps no id, and its next life is another node
//! to the formation, as it is without a disk.

use std::sync::Arc;

use rafted_value::disk::Disk;
use rafted_value::env::Env;
use rafted_value::transport::ClusterId;
use rafted_value::{NodeId, node_on};
use serde::{Deserialize, Serialize};

use crate::error::FleetError;
use crate::formation::FoundingRecord;
use crate::note::{self, on_disk};

/// In a folder of its own: files beside the log are strangers to the host.
const FILE: &str = "fleet/membership";
/// A record of as many nodes as a cluster can have is below it.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Which cluster a node belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// Whose directory it is.
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    /// How the cluster was founded, where this node was a founder.
    pub(crate) record: Option<FoundingRecord>,
}

/// What is on the disk; variants are only ever added at the end.
#[derive(Serialize, Deserialize)]
enum Kept {
    V1(Membership),
}

impl Membership {
    /// What the directory of `env` remembers; `None` without a directory, and for one that no node has finished to
    /// take yet.
    ///
    /// # Errors
    ///
    /// When the directory is another node's, keeps groups of no known cluster, or cannot be read.
    pub(crate) async fn load(env: &Arc<dyn Env>) -> Result<Option<Self>, FleetError> {
        let node = env.transport().local().node;
        let kept = on_disk(env, move |disk| read(disk, node)).await;
        kept.map(Option::flatten).map_err(FleetError::Storage)
    }

    /// Makes the directory remember it; it is durable then.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) async fn save(self, env: &Arc<dyn Env>) -> Result<(), FleetError> {
        note::write(env, FILE, &Kept::V1(self)).await.map_err(FleetError::Storage)
    }
}

fn read(disk: &dyn Disk, node: NodeId) -> Result<Option<Membership>, String> {
    match node_on(disk).map_err(|error| error.to_string())? {
        None => return Ok(None),
        Some(owner) if owner != node => {
            return Err(format!("the directory {} is that of node {owner}, not of {node}", disk.place()));
        }
        Some(_) => (),
    }
    let Some(Kept::V1(membership)) = note::read(disk, FILE, FILE_BYTES_MAX)? else {
        return Err(format!("the directory {} keeps groups, but not of which cluster", disk.place()));
    };
    if membership.node != node {
        return Err(format!("file {FILE} is that of node {}, not of {node}", membership.node));
    }
    Ok(Some(membership))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{CHECKSUM_BYTES, seal, unseal};

    #[test]
    fn the_kept_bytes_never_change_and_damage_is_seen() {
        let membership = Membership { node: NodeId(300), cluster: ClusterId(5), record: None };
        let bytes = seal(&Kept::V1(membership.clone()));
        assert_eq!(bytes[CHECKSUM_BYTES..], [0, 172, 2, 5, 0]);
        let read = unseal(&bytes).map(|Kept::V1(membership)| membership);
        assert_eq!(read, Ok(membership));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal::<Kept>(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(unseal::<Kept>(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
