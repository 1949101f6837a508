//! Cores of their own for those who send and for those who are sent to.
//!
//! Ten times of what the nodes can do costs whoever sends it a good part of a core. On cores that the nodes share, that
//! part is missing to them, and what is left of their peak tells of the machine's scheduler and not of the cluster. So
//! peak and flood are both measured with the two apart.

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use, in two parts.
pub(super) struct Apart {
    clients: CpuSet,
    nodes: CpuSet,
}

impl Apart {
    /// Half for each, the nodes getting the odd one; none on a machine with a single core.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(super) fn new() -> Result<Option<Self>, Errno> {
        let all = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        Ok(halves(&cores).map(|(clients, nodes)| Self { clients: set(clients), nodes: set(nodes) }))
    }

    /// Threads and processes that this thread starts from now on run where nodes do.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(super) fn be_with_nodes(&self) -> Result<(), Errno> {
        sched_setaffinity(None, &self.nodes)
    }

    /// Threads that this thread starts from now on run where clients do.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(super) fn be_with_clients(&self) -> Result<(), Errno> {
        sched_setaffinity(None, &self.clients)
    }

    /// How many cores clients and nodes have.
    pub(super) fn counts(&self) -> (u32, u32) {
        (self.clients.count(), self.nodes.count())
    }
}

fn halves(cores: &[usize]) -> Option<(&[usize], &[usize])> {
    (cores.len() > 1).then(|| cores.split_at(cores.len() / 2))
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_nodes_share_no_core_and_both_have_one() {
        assert_eq!(halves(&[5]), None);
        for count in 2..9 {
            let cores: Vec<usize> = (1..=count).collect();
            let (clients, nodes) = halves(&cores).unwrap();
            assert_eq!([clients, nodes].concat(), cores);
            assert!(!clients.is_empty() && nodes.len() >= clients.len());
        }
    }
}
