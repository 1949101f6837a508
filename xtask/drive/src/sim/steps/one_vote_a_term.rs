//! A member gives its vote to one candidate a term, whatever happens to its node in between.

use std::collections::BTreeMap;

use rafted_value::MemberId;

/// Who was given each vote.
#[derive(Debug, Default)]
pub(super) struct OneVoteATerm(BTreeMap<(MemberId, u64), MemberId>);

impl OneVoteATerm {
    /// # Errors
    ///
    /// When the member gave its vote of this term to another candidate before.
    pub(super) fn votes(&mut self, member: MemberId, term: u64, candidate: MemberId) -> Result<(), String> {
        let first = *self.0.entry((member, term)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        Err(format!("votes for {first} and for {candidate} in term {term}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_votes_in_one_term_are_found() {
        let mut votes = OneVoteATerm::default();
        let [one, two] = [MemberId(1), MemberId(2)];
        votes.votes(one, 5, two).unwrap();
        votes.votes(one, 5, two).unwrap();
        votes.votes(one, 6, one).unwrap();
        assert!(votes.votes(one, 5, one).unwrap_err().contains("in term 5"));
    }
}
