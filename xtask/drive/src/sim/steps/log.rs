//! A member's log as a chain of hashes: two logs with one hash at an index are the same up to there.

/// The mixing step of the chain (in the manner of SplitMix64).
fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).wrapping_add(0x9e37_79b9_7f4a_7c15)
}

/// An entry with all that stands before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Link {
    pub(super) term: u64,
    pub(super) hash: u64,
}

impl Link {
    /// The first of all.
    pub(super) fn root(index: u64, term: u64) -> Self {
        Self { term, hash: mix(index, term) }
    }

    /// The one that follows it.
    pub(super) fn then(self, term: u64, digest: u64) -> Self {
        Self { term, hash: mix(mix(self.hash, term), digest) }
    }
}

/// Links from some index on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Log {
    /// The index of the first link.
    first: u64,
    links: Vec<Link>,
}

impl Log {
    /// A log that knows of one entry.
    pub(super) fn from(index: u64, link: Link) -> Self {
        Self { first: index, links: vec![link] }
    }

    /// The index of its oldest entry.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index of its newest entry.
    pub(super) fn last(&self) -> u64 {
        self.first + self.links.len() as u64 - 1
    }

    /// The entry at an index.
    pub(super) fn at(&self, index: u64) -> Option<Link> {
        self.links.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }

    /// Puts an entry at an index, in place of all from there on.
    ///
    /// # Errors
    ///
    /// When it would leave a gap, or replace the first.
    pub(super) fn put(&mut self, index: u64, term: u64, digest: u64) -> Result<Link, String> {
        let before = index.checked_sub(1).and_then(|before| self.at(before));
        let before = before.ok_or_else(|| {
            format!("entry {index} has none before it in a log from {} to {}", self.first, self.last())
        })?;
        let link = before.then(term, digest);
        self.links.truncate((index - self.first) as usize);
        self.links.push(link);
        Ok(link)
    }

    /// Puts the entries of another log there that come after its own newest one, up to an index.
    pub(super) fn extend_from(&mut self, other: &Log, to: u64) {
        for index in self.last() + 1..=to {
            let Some(link) = other.at(index) else { return };
            self.links.push(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_the_place_of_all_from_there_on() {
        let mut log = Log::from(1, Link::root(1, 1));
        let kept = log.put(2, 1, 20).unwrap();
        log.put(3, 1, 30).unwrap();
        log.put(4, 1, 40).unwrap();
        let replaced = log.put(3, 2, 31).unwrap();
        assert_eq!((log.last(), log.at(2), log.at(3)), (3, Some(kept), Some(replaced)));
        assert_eq!(replaced, kept.then(2, 31));
    }

    #[test]
    fn a_gap_is_refused() {
        let mut log = Log::from(5, Link::root(5, 1));
        assert!(log.put(7, 1, 0).is_err());
        assert!(log.put(5, 1, 0).is_err());
    }
}
