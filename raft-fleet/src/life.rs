//! Tells the directory of a node from a copy of it, or from an old backup, that is started after the original has gone on: a
//! member that has forgotten its votes and what it acknowledged would break what its groups promise.
//!
//! Each start on a directory draws a mark, writes it down, and has the cluster take it in as the node's next life. The
//! cluster remembers the newest life of each node, and takes in only what follows it: a start on a directory that had that
//! life. So of several copies the first one that is started is the node, and all others are refused from then on. A
//! counter of starts alone would not do: a copy that is started again and again would outgrow the original.

use std::sync::Arc;

use rafted_value::NodeId;
use rafted_value::disk::Disk;
use rafted_value::env::Env;
use serde::{Deserialize, Serialize};

use crate::cluster_state::ClusterState;
use crate::error::FleetError;
use crate::note::{self, on_disk};

const FILE: &str = "fleet/life";
/// A file of as many marks as there can be is below it.
const FILE_BYTES_MAX: usize = 4096;

/// Starts that are remembered while none of them is known to have been taken in; the oldest is forgotten first.
const STARTS_MAX: usize = 256;

/// One life of a node that keeps a directory: from a start that the cluster has taken in to the next such start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Life {
    /// How many the node has had, this one included.
    pub number: u64,
    /// Drawn at its start, so that no other start has the same.
    pub mark: u64,
}

impl Life {
    /// Whether this may follow the newest life that is known of a node; a life may follow itself.
    pub(crate) fn follows(self, known: Option<Life>, from: Option<Life>) -> bool {
        known == Some(self) || (known == from && self.number > known.map_or(0, |known| known.number))
    }
}

/// What a directory remembers of the lives of its node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Lives {
    /// Whose directory it is.
    node: NodeId,
    /// The newest one that the cluster is known to have taken in.
    last: Option<Life>,
    /// The marks of the starts since, the present one last; the cluster may have taken in any of them.
    starts: Vec<u64>,
}

/// What is on the disk; variants are only ever added at the end.
#[derive(Serialize, Deserialize)]
enum Kept {
    V1(Lives),
}

impl Lives {
    /// Those of a node that has had none yet.
    fn none(node: NodeId) -> Self {
        Self { node, last: None, starts: Vec::new() }
    }

    /// What the directory of `env` remembers of this node, which now starts on it; nothing is written yet. `None` without
    /// a directory.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(crate) async fn begin(env: &Arc<dyn Env>) -> Result<Option<Self>, FleetError> {
        let node = env.transport().local().node;
        let kept = on_disk(env, move |disk| read(disk, node)).await.map_err(FleetError::Storage)?;
        Ok(kept.map(|lives| lives.with_start(env.random_u64())))
    }

    fn with_start(mut self, mark: u64) -> Self {
        if self.starts.len() >= STARTS_MAX {
            self.starts.remove(0);
        }
        self.starts.push(mark);
        self
    }

    /// Makes the directory remember it; it is durable then.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) async fn save(self, env: &Arc<dyn Env>) -> Result<(), FleetError> {
        note::write(env, FILE, &Kept::V1(self)).await.map_err(FleetError::Storage)
    }

    /// The life that the cluster is to take in, given the newest one that it is known to have taken in.
    ///
    /// # Errors
    ///
    /// When that one had another directory: this is a copy of it.
    pub(crate) fn present(&self, known: Option<Life>) -> Result<Life, Copied> {
        let mark = *self.starts.last().expect("each start has a mark");
        let last = self.last.map_or(0, |last| last.number);
        let Some(known) = known else { return Ok(Life { number: last + 1, mark }) };
        // Of a state that is older than what this directory has seen, nothing follows.
        let is_own = known.number < last || Some(known) == self.last || self.starts.contains(&known.mark);
        if !is_own {
            return Err(Copied { last, known: known.number });
        }
        let number = if known.mark == mark { known.number } else { known.number.max(last) + 1 };
        Ok(Life { number, mark })
    }

    /// The cluster has taken the present life in.
    pub(crate) fn taken_in(self, life: Life) -> Self {
        Self { last: Some(life), starts: vec![life.mark], ..self }
    }

    /// The same, where the cluster state is all that is known.
    ///
    /// # Errors
    ///
    /// [`FleetError::Copied`].
    pub(crate) fn present_in(&self, state: &ClusterState, env: &Arc<dyn Env>) -> Result<Life, FleetError> {
        let known = state.lives().get(&self.node).copied();
        self.present(known).map_err(|Copied { last, known }| {
            let directory = env.disk().map_or_else(String::new, |disk| disk.place());
            FleetError::Copied { directory, node: self.node, last, known }
        })
    }
}

/// The directory has missed a life of its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Copied {
    /// The number of the newest life that had this directory; 0 for none.
    pub(crate) last: u64,
    /// The number of the newest life that is known.
    pub(crate) known: u64,
}

/// What is kept of another node has no meaning for this one: the directory was never taken.
fn read(disk: &dyn Disk, node: NodeId) -> Result<Lives, String> {
    let kept = note::read(disk, FILE, FILE_BYTES_MAX)?.map(|Kept::V1(lives)| lives);
    Ok(kept.filter(|lives| lives.node == node).unwrap_or_else(|| Lives::none(node)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::note::{CHECKSUM_BYTES, seal, unseal};

    const NODE: NodeId = NodeId(300);

    /// A node, what the cluster knows of it, and the copies of its directory.
    struct Tale {
        known: Option<Life>,
        directories: Vec<Lives>,
        next_mark: u64,
    }

    impl Tale {
        fn new() -> Self {
            Self { known: None, directories: vec![Lives::none(NODE)], next_mark: 1 }
        }

        fn copy(&mut self, from: usize) -> usize {
            self.directories.push(self.directories[from].clone());
            self.directories.len() - 1
        }

        /// A start that ends before the cluster hears of it.
        fn start(&mut self, at: usize) {
            let lives = self.directories[at].clone().with_start(self.next_mark);
            self.next_mark += 1;
            self.directories[at] = lives;
        }

        /// The cluster takes the present life in, unless it is a copy's; the directory may not come to know.
        fn join(&mut self, at: usize, is_told: bool) -> Result<u64, Copied> {
            let lives = self.directories[at].clone();
            let life = lives.present(self.known)?;
            assert!(life.follows(self.known, self.known), "{life:?} after {:?}", self.known);
            self.known = Some(life);
            if is_told {
                self.directories[at] = lives.taken_in(life);
            }
            Ok(life.number)
        }

        fn run(&mut self, at: usize) -> Result<u64, Copied> {
            self.start(at);
            self.join(at, true)
        }
    }

    #[test]
    fn a_directory_that_is_started_again_is_the_nodes_next_life() {
        let mut tale = Tale::new();
        for life in 1..5 {
            assert_eq!(tale.run(0), Ok(life));
            assert_eq!(tale.join(0, true), Ok(life), "it may say so twice");
        }
    }

    #[test]
    fn of_a_directory_and_its_copy_the_one_that_is_started_first_is_the_node() {
        for first in 0..2 {
            let mut tale = Tale::new();
            assert_eq!(tale.run(0), Ok(1));
            assert_eq!(tale.copy(0), 1);
            assert_eq!(tale.run(first), Ok(2));
            assert_eq!(tale.run(1 - first), Err(Copied { last: 1, known: 2 }));
            assert_eq!(tale.run(first), Ok(3));
        }
    }

    /// A plain counter of starts would take it for the newer one.
    #[test]
    fn a_copy_does_not_outgrow_the_original_however_often_it_is_started() {
        let mut tale = Tale::new();
        assert_eq!(tale.run(0), Ok(1));
        let copy = tale.copy(0);
        (0..2 * STARTS_MAX).for_each(|_| tale.start(copy));
        assert_eq!(tale.run(0), Ok(2));
        assert_eq!(tale.run(copy), Err(Copied { last: 1, known: 2 }));
    }

    #[test]
    fn a_start_that_the_cluster_took_in_without_the_node_hearing_of_it_is_no_copys() {
        let mut tale = Tale::new();
        tale.start(0);
        assert_eq!(tale.join(0, false), Ok(1));
        tale.start(0);
        tale.start(0);
        assert_eq!(tale.join(0, false), Ok(2));
        assert_eq!(tale.run(0), Ok(3));
    }

    /// A view that is a little old, or a cluster that was brought back without its newest commands.
    #[test]
    fn a_cluster_that_knows_less_than_the_directory_proves_nothing() {
        let mut tale = Tale::new();
        assert_eq!(tale.run(0), Ok(1));
        let before = tale.known;
        assert_eq!(tale.run(0), Ok(2));
        tale.known = before;
        assert_eq!(tale.run(0), Ok(3));
        tale.known = None;
        assert_eq!(tale.run(0), Ok(4));
    }

    #[test]
    fn a_directory_that_has_never_told_its_life_is_a_copy_once_one_is_known() {
        let mut tale = Tale::new();
        let backup = tale.copy(0);
        assert_eq!(tale.run(0), Ok(1));
        assert_eq!(tale.run(backup), Err(Copied { last: 0, known: 1 }));
    }

    proptest! {
        /// However copies are made and started: once one that was taken in had another copy beside it, that other one
        /// never comes in again, and whoever came in last always does.
        #[test]
        fn of_all_copies_one_line_of_lives_goes_on(
            steps in prop::collection::vec((0..4_u8, 0..8_usize), 1..60),
        ) {
            let mut tale = Tale::new();
            // The last that was taken in, and since when each directory is a copy of what that one has left behind.
            let (mut line, mut lost) = (0, vec![false]);
            for (step, at) in steps {
                let at = at % tale.directories.len();
                match step {
                    0 if tale.directories.len() < 8 => {
                        tale.copy(at);
                        lost.push(lost[at]);
                    }
                    1 => tale.start(at),
                    _ => {
                        tale.start(at);
                        let joined = tale.join(at, step == 2);
                        prop_assert_eq!(joined.is_err(), lost[at], "{:?}", joined);
                        if joined.is_ok() {
                            line = at;
                            lost.iter_mut().enumerate().for_each(|(other, lost)| *lost = other != at);
                        }
                    }
                }
            }
            prop_assert!(tale.run(line).is_ok());
        }
    }

    #[test]
    fn the_kept_bytes_never_change_and_damage_is_seen() {
        let lives = Lives { node: NODE, last: Some(Life { number: 2, mark: 5 }), starts: vec![5, 6] };
        let bytes = seal(&Kept::V1(lives.clone()));
        assert_eq!(bytes[CHECKSUM_BYTES..], [0, 172, 2, 1, 2, 5, 2, 5, 6]);
        assert_eq!(unseal(&bytes).map(|Kept::V1(lives)| lives), Ok(lives));
        for length in 0..bytes.len() {
            assert!(unseal::<Kept>(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn as_many_starts_as_are_remembered_fit_the_file() {
        let lives = Lives { node: NODE, last: Some(Life { number: 2, mark: 5 }), starts: Vec::new() };
        let lives = (0..2 * STARTS_MAX).fold(lives, |lives, _| lives.with_start(u64::MAX));
        assert_eq!(lives.starts.len(), STARTS_MAX);
        assert!(seal(&Kept::V1(lives)).len() <= FILE_BYTES_MAX);
    }
}
