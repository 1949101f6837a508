//! What a node that looks for a cluster sees at each address: for the people who wait with it. Pure.

use std::collections::BTreeMap;
use std::fmt;

use rafted_value::transport::{CallError, ClusterId, PeerInfo};

/// Addresses that one line names; the others are counted.
const SHOWN_MAX: usize = 8;

/// What was last seen at each address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sightings {
    at: BTreeMap<String, Sight>,
}

/// What was seen at one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sight {
    /// Nobody, or somebody who refused us.
    Nobody(String),
    /// This very node.
    Myself,
    /// A node that did not say anything of use.
    Strange {
        /// Its name.
        name: String,
        /// What happened.
        reason: String,
    },
    /// A node that belongs to no cluster.
    Unformed {
        /// Its name.
        name: String,
        /// Whether it has seen us.
        sees_us: bool,
    },
    /// A node of a cluster.
    Formed {
        /// Its name.
        name: String,
        /// The cluster.
        cluster: ClusterId,
    },
    /// A node of a cluster that did not take us in.
    NotTakenIn {
        /// Why.
        reason: String,
    },
}

impl Sightings {
    /// Notes what is at an address now.
    pub(crate) fn note(&mut self, address: &str, sight: Sight) {
        self.at.insert(address.to_owned(), sight);
    }

    /// Two addresses with nodes of different clusters, if there are any.
    pub(crate) fn of_two_clusters(&self) -> Option<[(String, ClusterId); 2]> {
        let mut formed = self.at.iter().filter_map(|(address, sight)| match sight {
            Sight::Formed { cluster, .. } => Some((address.clone(), *cluster)),
            _ => None,
        });
        let one = formed.next()?;
        let other = formed.find(|(_, cluster)| *cluster != one.1)?;
        Some([one, other])
    }
}

impl Sight {
    /// Somebody was there, who has said no more than in the handshake.
    pub(crate) fn dialled(peer: PeerInfo) -> Self {
        match peer.cluster {
            Some(cluster) => Sight::Formed { name: peer.name, cluster },
            None => Sight::Strange { name: peer.name, reason: "it did not tell of a cluster".into() },
        }
    }

    /// Nobody was there, as a dial said.
    pub(crate) fn nobody(error: CallError) -> Self {
        Sight::Nobody(match error {
            // The address is said beside it.
            CallError::NoPeer { reason, .. } => reason,
            error => error.to_string(),
        })
    }
}

impl fmt::Display for Sightings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() {
            return f.write_str("no address is known");
        }
        for (index, (address, sight)) in self.at.iter().take(SHOWN_MAX).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address} {sight}")?;
        }
        match self.at.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sight::Nobody(reason) => write!(f, "has nobody for us: {reason}"),
            Sight::Myself => f.write_str("is this node"),
            Sight::Strange { name, reason } => write!(f, "is node {name:?}: {reason}"),
            Sight::Unformed { name, sees_us: true } => write!(f, "is node {name:?} without a cluster"),
            Sight::Unformed { name, sees_us: false } => {
                write!(f, "is node {name:?} without a cluster, which has not seen this node")
            }
            Sight::Formed { name, cluster } => write!(f, "is node {name:?} of cluster {cluster}"),
            Sight::NotTakenIn { reason } => write!(f, "does not take this node in yet: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_every_address_and_what_is_there() {
        let mut sightings = Sightings::default();
        assert_eq!(sightings.to_string(), "no address is known");
        sightings.note("b:1", Sight::Unformed { name: "node-2".into(), sees_us: true });
        sightings.note("a:1", Sight::Myself);
        let refused = CallError::NoPeer { address: "c:1".into(), reason: "certificate of another CA".into() };
        sightings.note("c:1", Sight::nobody(refused));
        let line = "a:1 is this node; b:1 is node \"node-2\" without a cluster; \
                    c:1 has nobody for us: certificate of another CA";
        assert_eq!(sightings.to_string(), line);
    }

    #[test]
    fn two_clusters_are_told_by_one_address_each() {
        let mut sightings = Sightings::default();
        let formed = |cluster: u128| Sight::Formed { name: "n".into(), cluster: ClusterId(cluster) };
        sightings.note("a:1", Sight::Myself);
        sightings.note("b:1", formed(5));
        sightings.note("c:1", formed(5));
        assert_eq!(sightings.of_two_clusters(), None);
        sightings.note("d:1", formed(6));
        let two = [("b:1".to_owned(), ClusterId(5)), ("d:1".to_owned(), ClusterId(6))];
        assert_eq!(sightings.of_two_clusters(), Some(two));
    }

    #[test]
    fn a_line_has_an_end() {
        let mut sightings = Sightings::default();
        (0..20).for_each(|n| sightings.note(&format!("{n}:1"), Sight::Myself));
        assert!(sightings.to_string().ends_with("; and 12 more"));
    }
}
