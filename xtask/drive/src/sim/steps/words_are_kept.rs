//! What a member has said, it knows after a restart: the terms in which it spoke, and the entries that it keeps.

use super::log::{Link, Log};

/// What one member has said.
#[derive(Debug, Default)]
pub(super) struct Words {
    term: u64,
    /// The newest entry that it told a leader it keeps, as long as nothing has taken its place.
    keeps: Option<(u64, Link)>,
}

impl Words {
    /// It speaks in a term.
    pub(super) fn speaks(&mut self, term: u64) {
        self.term = self.term.max(term);
    }

    /// It tells a leader that it keeps all entries of its log up to one.
    ///
    /// # Errors
    ///
    /// When its log does not have it.
    pub(super) fn keeps(&mut self, log: &Log, index: u64) -> Result<(), String> {
        let link = log.at(index);
        let link =
            link.filter(|_| index <= log.last()).or(log.at(log.first()).filter(|_| index <= log.first()));
        let link = link.ok_or(format!("says that it keeps entry {index} of a log up to {}", log.last()))?;
        if self.keeps.is_none_or(|(known, _)| known < index) {
            self.keeps = Some((index, link));
        }
        Ok(())
    }

    /// Entries from `index` on were replaced in the log, which is now this.
    pub(super) fn is_released_from(&mut self, log: &Log, index: u64) {
        if self.keeps.is_some_and(|(known, _)| known >= index) {
            self.keeps = index.checked_sub(1).and_then(|left| Some((left, log.at(left)?)));
        }
    }

    /// Its term is this one.
    ///
    /// # Errors
    ///
    /// When it has spoken in a later one.
    pub(super) fn stands(&self, term: u64) -> Result<(), String> {
        if term >= self.term {
            return Ok(());
        }
        Err(format!("stands in term {term} and has spoken in term {}", self.term))
    }

    /// It comes back with this log.
    ///
    /// # Errors
    ///
    /// When the log lacks what it said it keeps.
    pub(super) fn comes_back(&self, log: &Log) -> Result<(), String> {
        match self.keeps {
            Some((index, link)) if index >= log.first() && log.at(index) != Some(link) => Err(format!(
                "has come back without entry {index} of term {}, which it said it keeps",
                link.term
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_entry_that_is_gone_is_found() {
        let mut log = Log::from(1, Link::root(1, 1));
        let short = log.clone();
        log.put(2, 1, 20).unwrap();
        let mut words = Words::default();
        words.keeps(&log, 2).unwrap();
        words.comes_back(&log).unwrap();
        assert!(words.comes_back(&short).unwrap_err().contains("without entry 2"));
        words.is_released_from(&log, 2);
        words.comes_back(&short).unwrap();
        words.keeps(&short, 2).unwrap_err();
    }

    #[test]
    fn a_term_that_was_spoken_in_and_forgotten_is_found() {
        let mut words = Words::default();
        words.speaks(4);
        words.speaks(3);
        words.stands(4).unwrap();
        words.stands(3).unwrap_err();
    }
}
