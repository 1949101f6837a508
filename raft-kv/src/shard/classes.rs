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

/// The most bytes of the classes of a tally that names them: a message has room for one, and for what the layers below add.
const NAMED_BYTES_MAX: usize = 3 << 20;
/// What a class takes beside its prefix, at most.
const COUNT_BYTES_MAX: usize = 30;

/// The counts of a tally, which is one message however many classes there are: those of each tag alone, with prefixes that are
/// empty, where those of each class are too much. It depends on the counts alone, so that tallies can be compared.
pub(super) fn in_one_message(counts: Vec<ClassCount>) -> Vec<ClassCount> {
    let bytes: usize = counts.iter().map(|class| class.prefix.len() + COUNT_BYTES_MAX).sum();
    if bytes <= NAMED_BYTES_MAX {
        return counts;
    }
    let mut tags = BTreeMap::<u64, u64>::new();
    for ClassCount { tag, count, .. } in counts {
        let sum = tags.entry(tag).or_insert(0);
        *sum = sum.saturating_add(count);
    }
    tags.into_iter().map(|(tag, count)| ClassCount { prefix: Vec::new(), tag, count }).collect()
}

/// How many values of one class there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClassCount {
    /// What the keys of the class begin with, as [`ValuePerKey::class`](crate::ValuePerKey::class) says; empty where it is left
    /// out, see [`Tally::counts`].
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
    /// The classes that have values, in order. Where they are too much for one message (3 MiB), the values of each tag are counted
    /// alone, whatever their keys begin with: the prefixes are empty then.
    pub counts: Vec<ClassCount>,
}

#[cfg(test)]
mod tests {
    use raft_fleet::rafted_value::encode;

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
    /// A tally named every class, and 16,000 names of 255 bytes are no message any more: whoever asked for it got none, for ever.
    #[test]
    fn classes_that_are_too_much_for_one_message_are_counted_by_their_tags() {
        let class = |n: u64, tag| ClassCount { prefix: format!("{n:0>255}\0").into_bytes(), tag, count: 2 };
        let few: Vec<_> = (0..10_000).map(|n| class(n, n)).collect();
        assert_eq!(in_one_message(few.clone()), few);
        let many: Vec<_> = (0..200_000).map(|n| class(n, n / 2)).collect();
        let counts = in_one_message(many);
        let by_tag = |tag| ClassCount { prefix: vec![], tag, count: 4 };
        assert_eq!(counts, (0..100_000).map(by_tag).collect::<Vec<_>>());
        assert!(encode(&counts).len() < NAMED_BYTES_MAX);
    }
}
