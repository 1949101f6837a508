//! The log against a dumb twin: whatever is written, cut, rewritten and crashed, what was synced is there and nothing
//! is half there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::message::WireSnapshot;

/// One thing that happens; numbers are taken modulo what is possible.
#[derive(Clone, Debug)]
enum Step {
    Append {
        group: u64,
        back: u64,
        count: u64,
        vote: bool,
    },
    Compact {
        group: u64,
        back: u64,
        kept: u64,
    },
    Rebase {
        group: u64,
        ahead: u64,
    },
    End {
        group: u64,
    },
    Sync,
    Mark,
    Reclaim,
    /// Records of several steps in one batch.
    Batch(Vec<Step>),
    Crash,
    Kill,
    FailSync,
    Close,
}

fn change() -> impl Strategy<Value = Step> {
    let group = 0..4_u64;
    prop_oneof![
        8 => (group.clone(), 0..4_u64, 0..6_u64, any::<bool>())
            .prop_map(|(group, back, count, vote)| Step::Append { group, back, count, vote }),
        2 => (group.clone(), 0..4_u64, 0..4_u64).prop_map(|(group, back, kept)| Step::Compact { group, back, kept }),
        1 => (group.clone(), 0..4_u64).prop_map(|(group, ahead)| Step::Rebase { group, ahead }),
        1 => group.prop_map(|group| Step::End { group }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => change(),
        3 => proptest::collection::vec(change(), 1..5).prop_map(Step::Batch),
        6 => Just(Step::Sync),
        1 => Just(Step::Mark),
        3 => Just(Step::Reclaim),
        1 => Just(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::FailSync),
        1 => Just(Step::Close),
    ]
}

/// What the twin knows of a member.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    id: MemberId,
    snapshot: KeptSnapshot,
    vote: VoteRecord,
    before: Place,
    log: BTreeMap<u64, WireEntry>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Twin {
    members: BTreeMap<GroupId, Member>,
    ended: BTreeMap<GroupId, MemberId>,
}

impl Twin {
    fn recovered(recovered: &Recovered) -> Self {
        let member = |group: &RecoveredGroup| Member {
            id: group.member,
            snapshot: group.snapshot.clone(),
            vote: group.vote,
            before: group.before,
            log: group.entries.iter().map(|entry| (entry.index, entry.clone())).collect(),
        };
        let members = recovered.groups.iter().map(|(id, group)| (*id, member(group))).collect();
        Self { members, ended: recovered.ended.clone() }
    }

    /// The member of a group, founded if it has none.
    fn member(&mut self, group: GroupId, records: &mut Vec<Record>) -> &mut Member {
        let id = MemberId(self.ended.get(&group).map_or(1, |ended| ended.0 + 1));
        self.members.entry(group).or_insert_with(|| {
            let (vote, before) = (VoteRecord::default(), Place::default());
            let (snapshot, entries) = (KeptSnapshot::Nothing, vec![]);
            records.push(Record::Base {
                group,
                member: id,
                snapshot,
                vote,
                before,
                entries,
                durability: Durability::Async,
            });
            Member { id, snapshot: KeptSnapshot::Nothing, vote, before, log: BTreeMap::new() }
        })
    }

    /// The whole member as a record.
    fn base(&self, group: GroupId) -> Vec<Record> {
        let Some(member) = self.members.get(&group) else { return vec![] };
        let Member { id, snapshot, vote, before, log } = member.clone();
        let entries = log.into_values().collect();
        vec![Record::Base {
            group,
            member: id,
            snapshot,
            vote,
            before,
            entries,
            durability: Durability::Async,
        }]
    }

    /// Changes the twin and says how the log is told.
    fn step(&mut self, step: &Step, term: u64) -> Vec<Record> {
        let mut records = Vec::new();
        match *step {
            Step::Append { group, back, count, vote } => {
                let group = GroupId(group);
                let member = self.member(group, &mut records);
                // What is in a snapshot is committed, and never replaced.
                let first = member.last().saturating_sub(back).max(member.least()) + 1;
                let entries = if count > 0 { entries(term, first, first + count - 1) } else { vec![] };
                let vote = if vote {
                    VoteRecord { term, vote: 1, commit: first, promise_ms: 200 }
                } else {
                    member.vote
                };
                if count > 0 {
                    member.log.split_off(&first);
                    member.log.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
                }
                member.vote = vote;
                records.push(Record::Append { group, member: member.id, vote, entries });
            }
            Step::Compact { group, back, kept } => {
                let group = GroupId(group);
                let member = self.member(group, &mut records);
                let index = member.last().saturating_sub(back).max(member.least());
                let before = index.saturating_sub(kept).max(member.before.index);
                let snapshot = meta(index, member.term(index));
                member.before = Place { index: before, term: member.term(before) };
                member.log = member.log.split_off(&(before + 1));
                member.snapshot = snapshot.clone();
                let Member { id, vote, before, .. } = *member;
                records.push(Record::Compacted {
                    group,
                    member: id,
                    snapshot,
                    before,
                    vote,
                    durability: Durability::Async,
                });
            }
            Step::Rebase { group, ahead } => {
                let group = GroupId(group);
                let member = self.member(group, &mut records);
                let index = member.last() + ahead;
                member.before = Place { index, term };
                member.log.clear();
                member.snapshot = meta(index, term);
                member.vote = VoteRecord { term, vote: 0, commit: index, promise_ms: 0 };
                records.extend(self.base(group));
            }
            Step::End { group } => {
                let group = GroupId(group);
                if let Some(member) = self.members.remove(&group) {
                    self.ended.insert(group, member.id);
                    records.push(Record::Ended { group, newest: member.id });
                }
            }
            _ => {}
        }
        records
    }
}

impl Member {
    fn last(&self) -> u64 {
        self.log.keys().next_back().copied().unwrap_or(self.before.index)
    }

    /// The newest entry that is in the snapshot.
    fn least(&self) -> u64 {
        self.snapshot.index().max(self.before.index)
    }

    fn term(&self, index: u64) -> u64 {
        self.log.get(&index).map_or(self.before.term, |entry| entry.term)
    }
}

/// Some are in a file and some in the record.
fn meta(index: u64, term: u64) -> KeptSnapshot {
    let (voters, learners) = (vec![MemberId(index)], vec![]);
    if index.is_multiple_of(2) {
        KeptSnapshot::File(SnapshotMeta { index, term, voters, learners, bytes: term, crc: 1 })
    } else {
        let state = Bytes::from(format!("state at {index}"));
        KeptSnapshot::Inline(WireSnapshot { index, term, voters, learners, state })
    }
}

/// A store, the twin, and what the twin was after each batch since the last one that is surely durable.
struct Run {
    disk: SimDisk,
    store: Option<Store>,
    twin: Twin,
    history: BTreeMap<u64, Twin>,
    durable: u64,
}

impl Run {
    fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("a store is open between steps")
    }

    fn append(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let appended = done(self.store().log.append(records)).unwrap();
        assert_eq!(appended.refused, BTreeMap::new());
        self.history.insert(appended.sequence, self.twin.clone());
    }

    fn synced(&mut self) {
        self.durable = self.store().log.size().batches;
    }

    /// Starts over from what the disk has now.
    fn reopen(&mut self) {
        drop(self.store.take());
        let (store, recovered) = open(&self.disk).unwrap();
        let batches = store.log.size().batches;
        assert!(batches >= self.durable, "batch {} was synced, and the log ends at {batches}", self.durable);
        let twin = Twin::recovered(&recovered);
        assert_eq!(twin, self.history[&batches]);
        assert_eq!(recovered.strangers, Vec::<String>::new());
        self.history = BTreeMap::from([(batches, twin.clone())]);
        (self.store, self.twin, self.durable) = (Some(store), twin, batches);
    }

    fn step(&mut self, step: &Step, term: u64) {
        match step {
            Step::Batch(steps) => {
                let records: Vec<_> = steps.iter().flat_map(|step| self.twin.step(step, term)).collect();
                self.append(&records);
            }
            Step::Sync => {
                done(self.store().log.sync()).unwrap();
                self.synced();
            }
            Step::Mark => done(self.store().log.write_mark()).unwrap(),
            Step::Reclaim => {
                let wanted = self.store().log.rewrite_wanted();
                let records: Vec<_> = wanted.into_iter().flat_map(|group| self.twin.base(group)).collect();
                self.append(&records);
                if done(self.store().log.reclaim()).unwrap() > 0 {
                    self.synced();
                }
            }
            Step::Crash => {
                self.disk.crash();
                self.reopen();
            }
            Step::Kill => {
                self.durable = self.store().log.size().batches;
                self.disk.kill();
                self.reopen();
            }
            Step::FailSync => {
                self.disk.fail_syncs(1);
                let _ = done(self.store().log.sync());
                self.disk.fail_syncs(0);
                self.disk.crash();
                self.reopen();
            }
            Step::Close => {
                done(self.store.take().expect("open between steps").close()).unwrap();
                self.durable = *self.history.keys().next_back().unwrap();
                self.disk.crash();
                self.reopen();
            }
            change => {
                let records = self.twin.step(change, term);
                self.append(&records);
            }
        }
    }
}

proptest! {
    #[test]
    fn what_was_synced_is_there_and_nothing_is_half_there(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let disk = new_disk(seed);
        let (store, _) = open(&disk).unwrap();
        let history = BTreeMap::from([(0, Twin::default())]);
        let mut run = Run { disk, store: Some(store), twin: Twin::default(), history, durable: 0 };
        for (step, term) in steps.iter().zip(1..) {
            run.step(step, term);
        }
        run.step(&Step::Crash, 0);
    }
}
