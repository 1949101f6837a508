//! What a node tells of itself.

use crate::hello::Hello;
use crate::id::{ClusterId, NodeId};

/// Who lives at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its id.
    pub node: NodeId,
    /// Its name, as in its certificate.
    pub name: String,
    /// Where it wants to be dialled.
    pub advertised: String,
    /// The cluster it belongs to, if it knows.
    pub cluster: Option<ClusterId>,
}

impl PeerInfo {
    pub(crate) fn of_hello(hello: &Hello) -> PeerInfo {
        PeerInfo {
            node: hello.node,
            name: hello.name.clone(),
            advertised: hello.advertised.clone(),
            cluster: hello.cluster,
        }
    }
}
