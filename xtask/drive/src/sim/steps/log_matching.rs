//! Log matching: two logs with an entry of one index and term are the same up to it (Raft, figure 3).

use std::collections::BTreeMap;

use super::log::Link;

/// What every entry that any member ever had stands on.
#[derive(Debug, Default)]
pub(super) struct LogMatching(BTreeMap<(u64, u64), u64>);

impl LogMatching {
    /// A log that begins behind an entry: the one that a group was founded with, or one that was there before.
    ///
    /// # Errors
    ///
    /// When no log ever had it.
    pub(super) fn begins(&mut self, index: u64, term: u64) -> Result<Link, String> {
        if self.0.is_empty() {
            let root = Link::root(index, term);
            self.0.insert((index, term), root.hash);
        }
        match self.0.get(&(index, term)) {
            Some(&hash) => Ok(Link { term, hash }),
            None => Err(format!("it begins behind entry {index} of term {term}, which no log ever had")),
        }
    }

    /// A log has this entry now.
    ///
    /// # Errors
    ///
    /// When another log has it with something else in it or before it.
    pub(super) fn appends(&mut self, index: u64, link: Link) -> Result<(), String> {
        let first = *self.0.entry((index, link.term)).or_insert(link.hash);
        if first == link.hash {
            return Ok(());
        }
        Err(format!("its log differs up to entry {index} of term {} from another that has it", link.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_on_two_pasts_is_found() {
        let mut matching = LogMatching::default();
        let root = matching.begins(1, 1).unwrap();
        let (one, other) = (root.then(1, 7), root.then(2, 7));
        for (index, link) in [(2, one), (2, other), (3, one.then(3, 8)), (3, one.then(3, 8))] {
            matching.appends(index, link).unwrap();
        }
        assert!(matching.appends(3, other.then(3, 8)).unwrap_err().contains("differs up to entry 3"));
    }

    #[test]
    fn a_beginning_that_nobody_had_is_found() {
        let mut matching = LogMatching::default();
        matching.begins(1, 1).unwrap();
        matching.begins(1, 1).unwrap();
        assert!(matching.begins(4, 1).unwrap_err().contains("no log ever had"));
    }
}
