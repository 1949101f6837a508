//! Where the other nodes of the cluster were last, remembered in the node's directory: a node that comes back finds them
//! even if it holds no member of the cluster group and its seeds are gone. A hint only, so damage costs nothing but the
//! hint.

use std::sync::Arc;

use rafted_value::NodeId;
use rafted_value::env::Env;
use serde::{Deserialize, Serialize};

use crate::cluster_state::ClusterState;
use crate::core::Core;
use crate::note::{on_disk, read, write};

const FILE: &str = "fleet/contacts";
/// As many nodes as a cluster can have, with the longest addresses, are below it.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The other nodes and their addresses.
pub(crate) type Contacts = Vec<(NodeId, String)>;

/// What is on the disk; variants are only ever added at the end.
#[derive(Serialize, Deserialize)]
enum Kept {
    V1(Contacts),
}

/// What the directory of `env` remembers.
pub(crate) async fn load(env: &Arc<dyn Env>) -> Contacts {
    match on_disk(env, |disk| read(disk, FILE, FILE_BYTES_MAX)).await.map(Option::flatten) {
        Ok(Some(Kept::V1(contacts))) => contacts,
        Ok(None) => Contacts::new(),
        Err(reason) => {
            tracing::warn!(reason, "the addresses of other nodes are forgotten");
            Contacts::new()
        }
    }
}

/// Remembers the nodes that the view lists, whenever they change.
pub(crate) async fn keep(core: Arc<Core>) {
    if core.env.disk().is_none() {
        return;
    }
    let mut kept = load(&core.env).await;
    loop {
        let view = core.views.current();
        let listed = contacts_of(&view.state, core.node);
        if listed != kept {
            match write(&core.env, FILE, &Kept::V1(listed.clone())).await {
                Ok(()) => kept = listed,
                Err(reason) => {
                    tracing::warn!(file = FILE, reason, "the addresses of other nodes are not kept");
                }
            }
        }
        core.env.sleep_until(core.jittered(core.config.balancing_interval)).await;
        core.views.newer_than(view.state.revision()).await;
    }
}

fn contacts_of(state: &ClusterState, me: NodeId) -> Contacts {
    let others = state.nodes().iter().filter(|(node, _)| **node != me);
    others.map(|(node, entry)| (*node, entry.address.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{CHECKSUM_BYTES, seal, unseal};

    #[test]
    fn the_kept_bytes_never_change_and_damage_is_seen() {
        let contacts = vec![(NodeId(300), "a:1".to_owned())];
        let bytes = seal(&Kept::V1(contacts.clone()));
        assert_eq!(bytes[CHECKSUM_BYTES..], [0, 1, 172, 2, 3, b'a', b':', b'1']);
        let read = unseal(&bytes).map(|Kept::V1(contacts)| contacts);
        assert_eq!(read, Ok(contacts));
        for length in 0..bytes.len() {
            assert!(unseal::<Kept>(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
