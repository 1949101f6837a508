//! How many values of each class a shard holds: an index over the entries, derived from them alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key_range::KeyRange;

/// The number of values of each class that has any.
#[derive(Default)]
pub(super) struct Classes(BTreeMap<Box<[u8]>, BTreeMap<u64, u64>>);

impl Classes {
    /// A value was of one class and is now of another, or of none.
    pub(super) fn moved(&mut self, before: Option<(&[u8], u64)>, after: Option<(&[u8], u64)>) {
        if before == after {
            return;
        }
        if let Some((prefix, tag)) = before {
            self.leave(prefix, tag);
        }
        if let Some((prefix, tag)) = after {
            if let Some(tags) = self.0.get_mut(prefix) {
                *tags.entry(tag).or_insert(0) += 1;
            } else {
                self.0.insert(prefix.into(), [(tag, 1)].into());
            }
        }
    }

    fn leave(&mut self, prefix: &[u8], tag: u64) {
        let tags = self.0.get_mut(prefix).expect("a class that is left has values");
        let count = tags.get_mut(&tag).expect("a class that is left has values");
        *count -= 1;
        if *count == 0 {
            tags.remove(&tag);
            if tags.is_empty() {
                self.0.remove(prefix);
            }
        }
    }

    /// Adds what was counted elsewhere.
    pub(super) fn join(&mut self, other: Classes) {
        for (prefix, tags) in other.0 {
            let joined = self.0.entry(prefix).or_default();
            for (tag, count) in tags {
                *joined.entry(tag).or_insert(0) += count;
            }
        }
    }

    pub(super) fn counts(&self) -> Vec<ClassCount> {
        self.counts_without(&Classes::default())
    }

    /// The same without what is counted in `other` too.
    pub(super) fn counts_without(&self, other: &Classes) -> Vec<ClassCount> {
        let mut counts = Vec::new();
        for (prefix, tags) in &self.0 {
            let others = other.0.get(prefix);
            for (tag, count) in tags {
                let count = count - others.and_then(|others| others.get(tag)).unwrap_or(&0);
                if count > 0 {
                    counts.push(ClassCount { prefix: prefix.to_vec(), tag: *tag, count });
                }
            }
        }
        counts
    }
}

/// How many values of one class there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClassCount {
    /// What the keys of the class begin with, as [`ValuePerKey::class`](crate::ValuePerKey::class) says.
    pub prefix: Vec<u8>,
    /// The tag of its values.
    pub tag: u64,
    /// How many there are.
    pub count: u64,
}

/// How many values of each class a shard held at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// What the shard is responsible for.
    pub range: KeyRange,
    /// The stamped time, in milliseconds since 1970: every command that was stamped earlier is counted. Zero where the
    /// tally was only read.
    pub now_ms: u64,
    /// The classes that have values, in order.
    pub counts: Vec<ClassCount>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_there_as_long_as_it_has_values() {
        let mut classes = Classes::default();
        let (a1, a2, b1) = ((&b"a"[..], 1), (&b"a"[..], 2), (&b"b"[..], 1));
        for class in [a1, a1, a2, b1] {
            classes.moved(None, Some(class));
        }
        classes.moved(Some(a1), Some(a2));
        classes.moved(Some(b1), None);
        let counts: Vec<_> =
            classes.counts().into_iter().map(|class| (class.prefix, class.tag, class.count)).collect();
        assert_eq!(counts, [(b"a".to_vec(), 1, 1), (b"a".to_vec(), 2, 2)]);
        classes.moved(Some(a1), None);
        classes.moved(Some(a2), None);
        classes.moved(Some(a2), None);
        assert!(classes.0.is_empty());
    }
}
