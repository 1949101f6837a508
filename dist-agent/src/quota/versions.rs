//! Which versions of which agent types the nodes can run, and which of them the cluster has agreed on; pure.
//!
//! Each node says what it can run before it serves. What is agreed for a type is the newest version that all of them can
//! run. It is raised when the last node that could not run the next one is gone or replaced, and never lowered: a node that
//! comes later and cannot run it, or not the oldest version in which agents may be stored, is refused.
//!
//! That order is for the sake of service; safety does not hang on it. Whichever member is given a state or a command of
//! a version that it cannot run ends itself instead of skipping it, however it got there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent_id::AgentTypeName;
use crate::error::BuildMismatch;

/// Nodes whose versions are known; more than a cluster has, since dead ones stay until they are known to be gone.
const NODES_MAX: usize = 4_096;
/// Agent types of one node.
pub(crate) const TYPES_MAX: usize = 1_000;
/// Versions of one type that a build can run.
pub(crate) const VERSIONS_MAX: usize = 64;

/// The types that a node can run.
pub(crate) type NodeTypes = BTreeMap<AgentTypeName, Span>;

/// The versions of a type that a build can run: from `first` on, one for each form.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) first: u32,
    /// A hash of the default state in each version: two builds that write one version in two ways are found by it.
    pub(crate) forms: Vec<u64>,
}

impl Span {
    fn last(&self) -> u32 {
        self.first.saturating_add(self.forms.len().saturating_sub(1) as u32)
    }

    fn form(&self, version: u32) -> Option<u64> {
        self.forms.get(version.checked_sub(self.first)? as usize).copied()
    }
}

/// What is agreed of one type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Agreed {
    /// The version that was agreed on first: no agent is stored in an earlier one.
    oldest: u32,
    now: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Node {
    /// That of a state of the cluster in which it was listed.
    revision: u64,
    types: NodeTypes,
}

/// The versions of the whole cluster.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Versions {
    agreed: BTreeMap<AgentTypeName, Agreed>,
    nodes: BTreeMap<u64, Node>,
}

/// A node says what it can run, and which nodes there are in a state of the cluster of this revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Join {
    pub(crate) node: u64,
    pub(crate) revision: u64,
    pub(crate) listed: Vec<u64>,
    pub(crate) types: NodeTypes,
}

impl Versions {
    /// Takes a node in, unless it cannot run what is agreed; forgets those that are gone.
    pub(super) fn join(&mut self, join: Join) -> Result<BTreeMap<AgentTypeName, u32>, BuildMismatch> {
        let Join { node, revision, listed, types } = join;
        // One that came later than what this node knows of the cluster is not gone.
        self.nodes.retain(|known, of| *known != node && (of.revision >= revision || listed.contains(known)));
        let fits = self.check(&types);
        if fits.is_ok() {
            self.nodes.insert(node, Node { revision, types });
        }
        self.raise();
        fits.map(|()| self.agreed())
    }

    /// What is agreed, by type.
    pub(super) fn agreed(&self) -> BTreeMap<AgentTypeName, u32> {
        self.agreed.iter().map(|(agent_type, agreed)| (agent_type.clone(), agreed.now)).collect()
    }

    /// The nodes that have said what they can run.
    pub(super) fn nodes(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    fn check(&self, types: &NodeTypes) -> Result<(), BuildMismatch> {
        let valid = |span: &Span| (1..=VERSIONS_MAX).contains(&span.forms.len());
        if types.len() > TYPES_MAX || !types.values().all(valid) || self.nodes.len() >= NODES_MAX {
            return Err(BuildMismatch::TooMany {
                nodes: NODES_MAX,
                types: TYPES_MAX,
                versions: VERSIONS_MAX,
            });
        }
        for (agent_type, Agreed { oldest, now }) in &self.agreed {
            let (agent_type, agreed, oldest) = (agent_type.to_string(), *now, *oldest);
            let Some(span) = types.get(agent_type.as_str()) else {
                return Err(BuildMismatch::UnknownType { agent_type, agreed });
            };
            let (first, last) = (span.first, span.last());
            if first > oldest || last < agreed {
                return Err(BuildMismatch::Versions { agent_type, first, last, oldest, agreed });
            }
        }
        for other in self.nodes.values() {
            for (agent_type, span) in types {
                let Some(theirs) = other.types.get(agent_type) else { continue };
                let differs = |version: &u32| {
                    theirs.form(*version).is_some_and(|form| span.form(*version) != Some(form))
                };
                if let Some(version) = (span.first..=span.last()).find(differs) {
                    return Err(BuildMismatch::Form { agent_type: agent_type.to_string(), version });
                }
            }
        }
        Ok(())
    }

    /// Raises each type to the newest version that all nodes can run.
    fn raise(&mut self) {
        let Some(any) = self.nodes.values().next() else { return };
        for agent_type in any.types.keys() {
            let spans: Option<Vec<&Span>> =
                self.nodes.values().map(|node| node.types.get(agent_type)).collect();
            let Some(spans) = spans else { continue };
            let newest = spans.iter().map(|span| span.last()).min().expect("there is a node");
            if spans.iter().all(|span| span.first <= newest) {
                let first = Agreed { oldest: newest, now: newest };
                let agreed = self.agreed.entry(agent_type.clone()).or_insert(first);
                agreed.now = agreed.now.max(newest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str) -> AgentTypeName {
        AgentTypeName::new(name).unwrap()
    }

    fn types(of: &[(&str, u32, u32)]) -> NodeTypes {
        let span = |first, last| Span { first, forms: (first..=last).map(u64::from).collect() };
        of.iter().map(|(agent_type, first, last)| (name(agent_type), span(*first, *last))).collect()
    }

    fn join(
        versions: &mut Versions,
        node: u64,
        (revision, listed): (u64, &[u64]),
        of: &[(&str, u32, u32)],
    ) -> Result<BTreeMap<AgentTypeName, u32>, BuildMismatch> {
        versions.join(Join { node, revision, listed: listed.to_vec(), types: types(of) })
    }

    fn agreed(of: &[(&str, u32)]) -> BTreeMap<AgentTypeName, u32> {
        of.iter().map(|(agent_type, version)| (name(agent_type), *version)).collect()
    }

    #[test]
    fn a_version_is_agreed_once_every_node_can_run_it() {
        let mut versions = Versions::default();
        for node in 1..=3 {
            let all = (node, &[1, 2, 3][..node as usize]);
            assert_eq!(join(&mut versions, node, all, &[("counter", 0, 0)]), Ok(agreed(&[("counter", 0)])));
        }
        let next = [("counter", 0, 1), ("note", 0, 0)];
        assert_eq!(join(&mut versions, 4, (5, &[2, 3, 4]), &next), Ok(agreed(&[("counter", 0)])));
        assert_eq!(join(&mut versions, 5, (6, &[3, 4, 5]), &next), Ok(agreed(&[("counter", 0)])));
        let all = agreed(&[("counter", 1), ("note", 0)]);
        assert_eq!(join(&mut versions, 6, (7, &[4, 5, 6]), &next), Ok(all.clone()));
        // An old node that comes late is refused, and holds nobody up.
        let late = join(&mut versions, 7, (8, &[4, 5, 6, 7]), &[("counter", 0, 0), ("note", 0, 0)]);
        let mismatch =
            BuildMismatch::Versions { agent_type: "counter".into(), first: 0, last: 0, oldest: 0, agreed: 1 };
        assert_eq!(late, Err(mismatch));
        let late = join(&mut versions, 7, (8, &[4, 5, 6, 7]), &[("counter", 0, 1)]);
        assert_eq!(late, Err(BuildMismatch::UnknownType { agent_type: "note".into(), agreed: 0 }));
        assert_eq!((versions.agreed(), versions.nodes()), (all, vec![4, 5, 6]));
    }

    #[test]
    fn a_build_that_cannot_go_on_at_the_oldest_version_is_refused() {
        let mut versions = Versions::default();
        join(&mut versions, 1, (1, &[1]), &[("counter", 0, 0)]).unwrap();
        let refused = join(&mut versions, 2, (2, &[1, 2]), &[("counter", 1, 1)]).unwrap_err();
        assert!(refused.to_string().contains("as versions 1 to 1"), "{refused}");
        // The first node has gone; its agents may still be there in the version that it wrote.
        assert!(join(&mut versions, 2, (3, &[2]), &[("counter", 1, 1)]).is_err());
        assert_eq!(join(&mut versions, 3, (4, &[3]), &[("counter", 0, 1)]), Ok(agreed(&[("counter", 1)])));
        assert!(join(&mut versions, 4, (5, &[3, 4]), &[("counter", 1, 2)]).is_err());
    }

    /// Somebody forgot to raise the version: members of the two builds would not read each other's states.
    #[test]
    fn one_version_in_two_forms_is_refused() {
        let mut versions = Versions::default();
        join(&mut versions, 1, (1, &[1]), &[("counter", 0, 1)]).unwrap();
        let mut other = types(&[("counter", 0, 2)]);
        other.get_mut("counter").unwrap().forms[1] = 77;
        let joined = versions.join(Join { node: 2, revision: 2, listed: vec![1, 2], types: other });
        assert_eq!(joined, Err(BuildMismatch::Form { agent_type: "counter".into(), version: 1 }));
    }

    /// A node that knows an old state of the cluster must not count out one that has come since.
    #[test]
    fn a_node_that_is_not_known_yet_is_not_gone() {
        let mut versions = Versions::default();
        join(&mut versions, 2, (9, &[1, 2]), &[("counter", 0, 0)]).unwrap();
        let next = [("counter", 0, 1)];
        assert_eq!(join(&mut versions, 1, (8, &[1]), &next), Ok(agreed(&[("counter", 0)])));
        assert_eq!(versions.nodes(), [1, 2]);
        assert_eq!(join(&mut versions, 1, (10, &[1]), &next), Ok(agreed(&[("counter", 1)])));
        assert_eq!(versions.nodes(), [1]);
    }

    #[test]
    fn what_has_no_limit_is_refused() {
        let mut versions = Versions::default();
        let span = Span { first: 0, forms: vec![] };
        let empty = NodeTypes::from([(name("counter"), span)]);
        assert!(versions.join(Join { node: 1, revision: 1, listed: vec![1], types: empty }).is_err());
        let span = Span { first: u32::MAX, forms: vec![0; VERSIONS_MAX + 1] };
        let many = NodeTypes::from([(name("counter"), span)]);
        assert!(versions.join(Join { node: 1, revision: 1, listed: vec![1], types: many }).is_err());
        assert_eq!(versions, Versions::default());
    }

    proptest! {
        /// Whatever comes and goes, every node that was taken in can run whatever is agreed and whatever may be stored, and
        /// nothing is ever taken back.
        #[test]
        fn every_node_can_run_what_is_agreed(
            joins in proptest::collection::vec((0_u64..6, 0_u32..4, 0_u32..3, 0_u8..64), 0..40),
        ) {
            let mut versions = Versions::default();
            let mut oldest = None;
            for (revision, (node, first, more, listed)) in joins.into_iter().enumerate() {
                let listed: Vec<_> = (0..6).filter(|node| listed & (1 << node) != 0).collect();
                let before = versions.agreed();
                let _ = join(&mut versions, node, (revision as u64, &listed), &[("a", first, first + more)]);
                let after = versions.agreed();
                prop_assert!(before.iter().all(|(of, version)| after[of] >= *version));
                let Some(now) = after.get("a").copied() else { continue };
                let oldest = *oldest.get_or_insert(now);
                for node in versions.nodes.values() {
                    let span = &node.types["a"];
                    prop_assert!(span.first <= oldest && span.last() >= now);
                }
            }
        }
    }
}
