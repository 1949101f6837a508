//! The store on a simulated disk.

mod damage;
mod life;
mod twin;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::config::Durability;
use crate::message::{WireEntry, WireEntryBody};
use crate::sim::{NetConfig, Sim, SimDisk};

pub(crate) const GROUP: GroupId = GroupId(1);
pub(crate) const MEMBER: MemberId = MemberId(5);

/// The output of a future that has nothing to wait for.
pub(crate) fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a simulated disk without latency never waits")
}

pub(crate) fn new_disk(seed: u64) -> SimDisk {
    SimDisk::new(Sim::new(seed, NetConfig::default()).rng())
}

pub(crate) fn opener() -> Opener {
    Opener { node: None, new_node: NodeId(9), new_salt: 0x1234_5678, cluster: None, boot: 1 }
}

/// Segments of one or two batches.
pub(crate) fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 300, segments_max: 4, snapshot_chunk_bytes: 64, ..StoreConfig::default() }
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Store, Recovered), StoreError> {
    done(Store::open(disk.disk(), config(), opener()))
}

/// Entries `first..=last` of a term, which say so.
pub(crate) fn entries(term: u64, first: u64, last: u64) -> Vec<WireEntry> {
    let body = |index| WireEntryBody::Normal(Bytes::from(format!("entry {index} of term {term}")));
    (first..=last).map(|index| WireEntry { term, index, body: body(index) }).collect()
}

pub(crate) fn base(group: GroupId) -> Record {
    let (before, vote) = (Place::default(), VoteRecord::default());
    Record::Base {
        group,
        member: MEMBER,
        snapshot: KeptSnapshot::Nothing,
        vote,
        before,
        entries: vec![],
        durability: Durability::Fsync,
    }
}

pub(crate) fn append(group: GroupId, term: u64, first: u64, last: u64) -> Record {
    let vote = VoteRecord { term, vote: 5, commit: first - 1, promise_ms: 200 };
    Record::Append { group, member: MEMBER, vote, entries: entries(term, first, last) }
}

/// Writes one batch and makes it durable.
pub(crate) fn write(store: &mut Store, records: &[Record]) {
    let appended = done(store.log.append(records)).unwrap();
    assert!(appended.refused.is_empty(), "{:?}", appended.refused);
    done(store.log.sync()).unwrap();
}

/// A disk with a closed store of `batches` batches in several segments, two of one mark.
pub(crate) fn written(batches: u64) -> SimDisk {
    let disk = new_disk(1);
    let (mut store, _) = open(&disk).unwrap();
    write(&mut store, &[base(GROUP)]);
    for index in 1..batches {
        write(&mut store, &[append(GROUP, 1, index, index)]);
    }
    done(store.close()).unwrap();
    disk
}

/// The indexes of the entries that a group has.
pub(crate) fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.groups[&GROUP].entries.iter().map(|entry| entry.index).collect()
}
