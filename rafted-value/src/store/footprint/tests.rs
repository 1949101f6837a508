//! What a log needs, step by step.

use bytes::Bytes;

use super::*;
use crate::config::Durability;
use crate::message::{WireEntry, WireEntryBody};
use crate::store::record::{KeptSnapshot, Place, SnapshotMeta, VoteRecord};

const GROUP: GroupId = GroupId(1);
const MEMBER: MemberId = MemberId(5);

fn entries(first: u64, last: u64) -> Vec<WireEntry> {
    let body = WireEntryBody::Normal(Bytes::new());
    (first..=last).map(|index| WireEntry { term: 1, index, body: body.clone() }).collect()
}

fn place(index: u64) -> Place {
    Place { index, term: 1 }
}

fn meta(index: u64) -> KeptSnapshot {
    KeptSnapshot::File(SnapshotMeta {
        index,
        term: 1,
        voters: vec![MEMBER],
        learners: vec![],
        bytes: 0,
        crc: 0,
    })
}

fn base(before: u64, last: u64) -> Record {
    let (snapshot, vote) = (meta(before), VoteRecord::default());
    let entries = entries(before + 1, last);
    Record::Base {
        group: GROUP,
        member: MEMBER,
        snapshot,
        vote,
        before: place(before),
        entries,
        durability: Durability::Fsync,
    }
}

fn append(first: u64, last: u64) -> Record {
    Record::Append {
        group: GROUP,
        member: MEMBER,
        vote: VoteRecord::default(),
        entries: entries(first, last),
    }
}

fn vote() -> Record {
    Record::Append { group: GROUP, member: MEMBER, vote: VoteRecord::default(), entries: vec![] }
}

fn compacted(snapshot: u64, before: u64) -> Record {
    let (snapshot, before, vote) = (meta(snapshot), place(before), VoteRecord::default());
    Record::Compacted { group: GROUP, member: MEMBER, snapshot, before, vote, durability: Durability::Fsync }
}

fn ended(newest: u64) -> Record {
    Record::Ended { group: GROUP, newest: MemberId(newest) }
}

/// Writes each record into its segment, of 10 bytes an entry, and gives the oldest segment that is needed then.
fn needed(steps: &[(u64, Record)]) -> Option<u64> {
    let mut footprint = Footprint::default();
    for (segment, record) in steps {
        footprint.apply(record, *segment, 10, Mode::Writing).expect("the record fits");
    }
    footprint.oldest_needed()
}

fn refused(steps: &[Record]) -> String {
    let (last, before) = steps.split_last().unwrap();
    let mut footprint = Footprint::default();
    for record in before {
        footprint.apply(record, 0, 10, Mode::Writing).expect("the record fits");
    }
    footprint.apply(last, 0, 10, Mode::Writing).expect_err("the record does not fit")
}

#[test]
fn entries_in_use_need_their_segments_and_dropped_ones_do_not() {
    let mut steps = vec![(0, base(0, 3)), (1, append(4, 6)), (2, append(7, 9)), (3, vote())];
    assert_eq!(needed(&steps), Some(0));
    steps.push((3, compacted(5, 5)));
    assert_eq!(needed(&steps), Some(1), "entry 6 is in use");
    steps.push((3, compacted(6, 6)));
    assert_eq!(needed(&steps), Some(2));
    steps.push((4, compacted(9, 9)));
    assert_eq!(needed(&steps), Some(4));
}

#[test]
fn entries_that_were_replaced_need_nothing() {
    let steps =
        [(0, base(0, 0)), (1, append(1, 6)), (2, append(7, 9)), (3, append(5, 8)), (4, compacted(4, 4))];
    assert_eq!(needed(&steps[..4]), Some(0), "the base itself");
    assert_eq!(needed(&steps), Some(3), "entries 1 to 4 are dropped, 5 to 9 were replaced");
}

#[test]
fn a_vote_needs_its_segment_until_it_is_told_again() {
    let steps = [(0, base(0, 0)), (1, vote()), (2, compacted(0, 0)), (3, vote()), (4, base(2, 4))];
    assert_eq!(needed(&steps[..3]), Some(2));
    assert_eq!(needed(&steps[..4]), Some(2));
    assert_eq!(needed(&steps), Some(4));
}

#[test]
fn an_ended_member_needs_one_record_and_never_comes_back() {
    assert_eq!(needed(&[(0, base(0, 4)), (1, ended(5))]), Some(1));
    assert_eq!(needed(&[(0, base(0, 4)), (1, ended(5)), (3, ended(5))]), Some(3));
    assert_eq!(needed(&[(0, base(0, 4)), (1, ended(4))]), Some(0), "a later member lives on");
    assert!(refused(&[base(0, 4), ended(5), base(0, 4)]).contains("has ended"));
}

#[test]
fn a_record_that_does_not_fit_is_refused() {
    for (steps, reason) in [
        (vec![append(1, 2)], "no base"),
        (vec![base(0, 3), append(5, 6)], "entry 5 leaves a gap after 3"),
        (vec![base(4, 6), append(3, 9)], "entry 3 would replace what is dropped up to 4"),
        (vec![base(4, 6), compacted(3, 3)], "dropped, after those up to 4"),
        (vec![base(4, 6), compacted(9, 9)], "up to 9 are dropped, of 6"),
        (vec![base(4, 6), compacted(4, 5)], "which snapshot 4 lacks"),
        (vec![base(0, 3), append(0, 3)], "index 0"),
    ] {
        let said = refused(&steps);
        assert!(said.contains(reason), "{said}");
    }
    let mut gap = entries(4, 5);
    gap.extend(entries(7, 7));
    let gap = Record::Append { group: GROUP, member: MEMBER, vote: VoteRecord::default(), entries: gap };
    assert!(refused(&[base(0, 3), gap]).contains("entry 7 follows entry 5"));
}

#[test]
fn live_bytes_follow_what_is_in_use() {
    let mut footprint = Footprint::default();
    let mut live = |record: &Record, bytes| {
        footprint.apply(record, 0, bytes, Mode::Writing).unwrap();
        footprint.live_bytes() - META_BYTES
    };
    assert_eq!(live(&base(0, 0), 50), 0);
    assert_eq!(live(&append(1, 10), 1_000), 1_000);
    assert_eq!(live(&append(6, 10), 300), 800, "half of the first are left");
    assert_eq!(live(&compacted(10, 5), 20), 400, "the books know segments, not entries");
    assert_eq!(live(&compacted(10, 10), 20), 0);
}

/// The twin found logs that were refused: a segment went because its entries had been replaced or dropped later, and what
/// was left in between had a gap.
#[test]
fn records_whose_predecessors_are_gone_are_tolerated_until_the_log_ends() {
    let mut footprint = Footprint::default();
    let mut apply = |record: &Record| footprint.apply(record, 0, 10, Mode::Recovering);
    assert_eq!(apply(&append(11, 15)), Ok(Fit::Counts));
    assert_eq!(apply(&compacted(9, 9)), Ok(Fit::Counts));
    assert_eq!(apply(&append(18, 19)), Ok(Fit::Counts));
    assert_eq!(apply(&append(10, 14)), Ok(Fit::Counts));
    footprint.recovered().unwrap();
    let gap = footprint.apply(&append(16, 16), 0, 10, Mode::Recovering);
    assert_eq!(gap, Err("entry 16 leaves a gap after 14".to_owned()));
    let mut apply = |record: &Record| footprint.apply(record, 0, 10, Mode::Recovering);
    assert_eq!(apply(&ended(5)), Ok(Fit::Counts));
    assert_eq!(apply(&append(15, 15)), Ok(Fit::Void));
}

#[test]
fn a_group_without_a_base_is_an_error_at_the_end() {
    let mut footprint = Footprint::default();
    footprint.apply(&append(11, 15), 0, 10, Mode::Recovering).unwrap();
    assert_eq!(footprint.recovered(), Err("group g1 has no base".to_owned()));
    footprint.apply(&ended(5), 0, 10, Mode::Recovering).unwrap();
    assert_eq!(footprint.recovered(), Ok(()));
}
