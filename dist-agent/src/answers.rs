//! Answers that were given before, for callers whom an older one serves as well.
//!
//! How old an answer is can be told only by who asked for it: from the moment at which the question was sent. So they are
//! kept here and not with other members, whose state may be of any age without their knowing it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft_kv::Key;
use raft_kv::rafted_value::env::MonoTime;

/// The newest answers to questions that may be answered stale. Bounded: once there are so many, the older half goes.
pub(crate) struct Answers {
    halves: Mutex<[Half; 2]>,
    half_max: usize,
}

/// By agent and question.
type Half = BTreeMap<(Key, Bytes), Known>;

#[derive(Clone)]
struct Known {
    asked: MonoTime,
    answer: Bytes,
}

impl Answers {
    /// At most so many, and none that has more than [`ANSWER_BYTES_MAX`] with its question.
    pub(crate) fn new(answers_max: usize) -> Self {
        Self { halves: Mutex::default(), half_max: answers_max / 2 }
    }

    /// An answer to a question that was asked at most `age_max` ago.
    pub(crate) fn get(&self, agent: &Key, query: &Bytes, age_max: Duration, now: MonoTime) -> Option<Bytes> {
        let question = (agent.clone(), query.clone());
        let halves = self.halves.lock();
        let known = halves.iter().filter_map(|half| half.get(&question)).max_by_key(|known| known.asked)?;
        (now.since(known.asked) <= age_max).then(|| known.answer.clone())
    }

    /// Keeps the answer to a question that was asked at this moment.
    pub(crate) fn put(&self, agent: &Key, query: &Bytes, asked: MonoTime, answer: &Bytes) {
        if self.half_max == 0 || query.len().saturating_add(answer.len()) > ANSWER_BYTES_MAX {
            return;
        }
        let mut halves = self.halves.lock();
        if halves[0].len() >= self.half_max {
            halves.swap(0, 1);
            halves[0].clear();
        }
        // An answer that comes late does not take the place of a newer one.
        let known = Known { asked, answer: answer.clone() };
        let entry = halves[0].entry((agent.clone(), query.clone())).or_insert_with(|| known.clone());
        if entry.asked < asked {
            *entry = known;
        }
    }
}

/// What is larger, question and answer together, is not kept.
const ANSWER_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_nanos(seconds * 1_000_000_000)
    }

    fn key(name: &str) -> Key {
        Key::new(name.to_owned()).unwrap()
    }

    #[test]
    fn an_answer_serves_while_it_is_young_enough_counted_from_the_question() {
        let (answers, query) = (Answers::new(10), Bytes::from("q"));
        let get = |age: u64, now: u64| answers.get(&key("a"), &query, Duration::from_secs(age), at(now));
        assert_eq!(get(100, 1), None);
        answers.put(&key("a"), &query, at(5), &Bytes::from("new"));
        answers.put(&key("a"), &query, at(3), &Bytes::from("late"));
        assert_eq!(get(2, 7), Some(Bytes::from("new")));
        assert_eq!(get(2, 8), None);
        assert_eq!(answers.get(&key("b"), &query, Duration::MAX, at(7)), None);
        assert_eq!(answers.get(&key("a"), &Bytes::from("other"), Duration::MAX, at(7)), None);
    }

    #[test]
    fn there_are_never_more_answers_than_the_limit_and_the_newest_stay() {
        let (answers, query) = (Answers::new(10), Bytes::new());
        for n in 0..100 {
            answers.put(&key(&n.to_string()), &query, at(n), &Bytes::from("x"));
            let count: usize = answers.halves.lock().iter().map(BTreeMap::len).sum();
            assert!(count <= 10);
            for known in n.saturating_sub(4)..=n {
                assert!(answers.get(&key(&known.to_string()), &query, Duration::MAX, at(n)).is_some());
            }
        }
        answers.put(&key("huge"), &query, at(100), &vec![7; ANSWER_BYTES_MAX + 1].into());
        assert_eq!(answers.get(&key("huge"), &query, Duration::MAX, at(100)), None);
    }

    /// Questions are kept with their answers, and were once as long as a message may be.
    #[test]
    fn an_answer_to_a_huge_question_is_not_kept() {
        let (answers, query) = (Answers::new(10), Bytes::from(vec![7; ANSWER_BYTES_MAX]));
        answers.put(&key("a"), &query, at(1), &Bytes::from("x"));
        assert_eq!(answers.get(&key("a"), &query, Duration::MAX, at(1)), None);
        answers.put(&key("a"), &query.slice(1..), at(1), &Bytes::from("x"));
        assert!(answers.get(&key("a"), &query.slice(1..), Duration::MAX, at(1)).is_some());
    }

    #[test]
    fn none_are_kept_where_none_are_wanted() {
        for answers_max in 0..4 {
            let (answers, query) = (Answers::new(answers_max), Bytes::new());
            for n in 0..9 {
                answers.put(&key(&n.to_string()), &query, at(n), &Bytes::from("x"));
            }
            let count: usize = answers.halves.lock().iter().map(BTreeMap::len).sum();
            assert!(count <= answers_max, "{count} of {answers_max}");
        }
    }
}
