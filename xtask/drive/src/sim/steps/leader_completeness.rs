//! Leader completeness: what was committed in one term, every leader of a later term has (Raft, figure 3).

use std::collections::BTreeMap;

use rafted_value::MemberId;

use super::log::{Link, Log};

/// The newest entry that each term committed.
#[derive(Debug, Default)]
pub(super) struct LeaderCompleteness(BTreeMap<u64, (u64, Link)>);

impl LeaderCompleteness {
    /// An entry is committed. A leader commits by counting an entry of its own term only, so that this is the term of
    /// who did.
    pub(super) fn commits(&mut self, index: u64, link: Link) {
        self.0.insert(link.term, (index, link));
    }

    /// A member with this log leads a term.
    ///
    /// # Errors
    ///
    /// When it lacks what an earlier term committed.
    pub(super) fn leads(&self, term: u64, log: &Log, who: MemberId) -> Result<(), String> {
        let newest = self.0.range(..term).map(|(_, newest)| *newest).max_by_key(|(index, _)| *index);
        let Some((index, link)) = newest else { return Ok(()) };
        if index < log.first() || log.at(index) == Some(link) {
            return Ok(());
        }
        Err(format!("{who} leads term {term} without entry {index} that term {} committed", link.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_without_what_an_earlier_term_committed_is_found() {
        let mut log = Log::from(1, Link::root(1, 1));
        let newest = log.put(2, 2, 20).unwrap();
        let mut complete = LeaderCompleteness::default();
        complete.commits(2, newest);
        let leads = |term, log: &Log| complete.leads(term, log, MemberId(1));
        leads(3, &log).unwrap();
        log.put(2, 1, 21).unwrap();
        leads(1, &log).unwrap();
        assert!(leads(3, &log).unwrap_err().contains("without entry 2"));
    }
}
