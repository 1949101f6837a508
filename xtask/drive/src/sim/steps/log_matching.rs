//! Log matching: two logs with an entry of one index and term are the same up to it (Raft, figure 3).

use std::collections::BTreeMap;

use rafted_value::MemberId;

use super::log::Link;

/// What every entry that any member ever had stands on, unless nobody else has ever had it and it was lost.
#[derive(Debug, Default)]
pub(super) struct LogMatching(BTreeMap<(u64, u64), Had>);

/// An entry that a member had.
#[derive(Debug)]
struct Had {
    hash: u64,
    /// Whose it is, where no other member has had it.
    only: Option<MemberId>,
}

impl LogMatching {
    /// A log that begins behind an entry: the one that a group was founded with, or one that was there before.
    ///
    /// # Errors
    ///
    /// When no log ever had it.
    pub(super) fn begins(&mut self, index: u64, term: u64) -> Result<Link, String> {
        if self.0.is_empty() {
            let root = Link::root(index, term);
            self.0.insert((index, term), Had { hash: root.hash, only: None });
        }
        match self.0.get(&(index, term)) {
            Some(&Had { hash, .. }) => Ok(Link { term, hash }),
            None => Err(format!("it begins behind entry {index} of term {term}, which no log ever had")),
        }
    }

    /// A member's log has this entry now.
    ///
    /// # Errors
    ///
    /// When another log has it with something else in it or before it.
    pub(super) fn appends(&mut self, member: MemberId, index: u64, link: Link) -> Result<(), String> {
        let new = || Had { hash: link.hash, only: Some(member) };
        let had = self.0.entry((index, link.term)).or_insert_with(new);
        had.only.take_if(|only| *only != member);
        if had.hash == link.hash {
            return Ok(());
        }
        Err(format!("its log differs up to entry {index} of term {} from another that has it", link.term))
    }

    /// A member comes back with a log up to this entry: what it had beyond that and told nobody of is as if it had never been. A
    /// single voter, which asks nobody, may even lead the same term once more.
    pub(super) fn comes_back(&mut self, member: MemberId, last: u64) {
        self.0.retain(|(index, _), had| *index <= last || had.only != Some(member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MemberId = MemberId(1);
    const TWO: MemberId = MemberId(2);

    #[test]
    fn what_only_its_member_had_may_be_lost_and_come_anew() {
        let mut matching = LogMatching::default();
        let root = matching.begins(1, 1).unwrap();
        let (kept, lost, other) = (root.then(2, 7), root.then(2, 7).then(2, 8), root.then(2, 7).then(2, 9));
        matching.appends(ONE, 2, kept).unwrap();
        matching.appends(ONE, 3, lost).unwrap();
        matching.comes_back(ONE, 2);
        matching.appends(ONE, 2, kept).unwrap();
        matching.appends(ONE, 3, other).unwrap();
        // Where another has had it, it is not forgotten, and neither is what was on its way.
        matching.appends(TWO, 2, kept).unwrap();
        assert!(matching.appends(TWO, 3, lost).is_err());
        matching.comes_back(ONE, 2);
        assert!(matching.appends(ONE, 3, lost).is_err());
    }

    #[test]
    fn one_entry_on_two_pasts_is_found() {
        let mut matching = LogMatching::default();
        let root = matching.begins(1, 1).unwrap();
        let (one, other) = (root.then(1, 7), root.then(2, 7));
        for (member, index, link) in
            [(ONE, 2, one), (TWO, 2, other), (ONE, 3, one.then(3, 8)), (TWO, 3, one.then(3, 8))]
        {
            matching.appends(member, index, link).unwrap();
        }
        assert!(matching.appends(TWO, 3, other.then(3, 8)).unwrap_err().contains("differs up to entry 3"));
    }

    #[test]
    fn a_beginning_that_nobody_had_is_found() {
        let mut matching = LogMatching::default();
        matching.begins(1, 1).unwrap();
        matching.begins(1, 1).unwrap();
        assert!(matching.begins(4, 1).unwrap_err().contains("no log ever had"));
    }
}
