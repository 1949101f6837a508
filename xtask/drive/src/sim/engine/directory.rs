//! Where clients look up which nodes there are: a name service that is never wrong about who was started last.

use parking_lot::Mutex;
use rafted_value::NodeId;

/// The newest node at each address.
#[derive(Debug, Default)]
pub(super) struct Directory(Mutex<Vec<(NodeId, String)>>);

impl Directory {
    /// A node was started at `address`; it takes the place of one that was there before.
    pub(super) fn enter(&self, node: NodeId, address: &str) {
        let mut entries = self.0.lock();
        match entries.iter_mut().find(|(_, known)| known == address) {
            Some(entry) => entry.0 = node,
            None => entries.push((node, address.to_owned())),
        }
    }

    /// The address of a node, if it is the newest there.
    pub(super) fn address(&self, node: NodeId) -> Option<String> {
        self.0.lock().iter().find(|(known, _)| *known == node).map(|(_, address)| address.clone())
    }

    /// The node at a place of the list, counted round and round.
    pub(super) fn at(&self, place: usize) -> (NodeId, String) {
        let entries = self.0.lock();
        entries[place % entries.len()].clone()
    }

    /// All nodes.
    pub(super) fn all(&self) -> Vec<(NodeId, String)> {
        self.0.lock().clone()
    }
}
