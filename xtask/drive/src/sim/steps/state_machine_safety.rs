//! State-machine safety: what one member knows to be committed at an index, no other member knows otherwise (Raft,
//! figure 3). What was committed once stays so.

use super::log::{Link, Log};

/// All that is committed.
#[derive(Debug, Default)]
pub(super) struct StateMachineSafety(Option<Log>);

impl StateMachineSafety {
    /// A member with this log knows of commits up to `commit`. Gives the newest of them when nobody knew of it before.
    ///
    /// # Errors
    ///
    /// When something else is committed there.
    pub(super) fn commits(&mut self, log: &Log, commit: u64) -> Result<Option<(u64, Link)>, String> {
        if commit < log.first() {
            return Ok(None);
        }
        let newest =
            log.at(commit).ok_or(format!("entry {commit} is committed in a log up to {}", log.last()))?;
        let known =
            self.0.get_or_insert_with(|| Log::from(log.first(), log.at(log.first()).unwrap_or(newest)));
        let last = known.last().min(commit);
        if let (Some(own), Some(other)) = (log.at(last), known.at(last))
            && own != other
        {
            return Err(format!(
                "knows entry {last} as committed in term {}, another {}",
                own.term, other.term
            ));
        }
        if commit <= known.last() {
            return Ok(None);
        }
        known.extend_from(log, commit);
        Ok(Some((commit, newest)))
    }

    /// How many entries are known to be committed.
    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |known| known.last() + 1 - known.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_entries_committed_at_one_index_are_found() {
        let mut one = Log::from(1, Link::root(1, 1));
        one.put(2, 1, 20).unwrap();
        let mut other = one.clone();
        let newest = one.put(3, 1, 30).unwrap();
        other.put(3, 2, 31).unwrap();
        let mut safety = StateMachineSafety::default();
        assert_eq!(safety.commits(&one, 3), Ok(Some((3, newest))));
        assert_eq!(safety.commits(&other, 2), Ok(None));
        assert!(safety.commits(&other, 3).unwrap_err().contains("entry 3"));
        assert!(safety.commits(&other, 4).is_err());
    }
}
