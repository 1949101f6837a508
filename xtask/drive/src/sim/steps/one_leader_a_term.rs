//! Election safety: at most one leader a term (Raft, figure 3), seen at every step.

use std::collections::BTreeMap;

use rafted_value::MemberId;

/// Who led each term.
#[derive(Debug, Default)]
pub(super) struct OneLeaderATerm(BTreeMap<u64, MemberId>);

impl OneLeaderATerm {
    /// A member leads a term; whether it is the first that is seen of this.
    ///
    /// # Errors
    ///
    /// When another member led it.
    pub(super) fn leads(&mut self, member: MemberId, term: u64) -> Result<bool, String> {
        match self.0.insert(term, member) {
            None => Ok(true),
            Some(first) if first == member => Ok(false),
            Some(first) => Err(format!("{first} and {member} both led term {term}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut leaders = OneLeaderATerm::default();
        assert_eq!(leaders.leads(MemberId(1), 2), Ok(true));
        assert_eq!(leaders.leads(MemberId(1), 2), Ok(false));
        assert_eq!(leaders.leads(MemberId(2), 3), Ok(true));
        leaders.leads(MemberId(2), 2).unwrap_err();
    }
}
