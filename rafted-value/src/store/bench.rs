//! A door to the log for the program that measures it, and for nothing else.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{KeptSnapshot, Opener, Place, Record, Store, StoreConfig, StoreError, VoteRecord};
use crate::config::Durability;
use crate::disk::RealDisk;
use crate::id::{GroupId, MemberId, NodeId};
use crate::message::{WireEntry, WireEntryBody};

/// A log in a directory, with some groups that entries go to in turn.
#[doc(hidden)]
pub struct LogBench {
    store: Store,
    groups: u64,
    index: u64,
    dropped: u64,
}

impl LogBench {
    /// A new log in an empty directory.
    ///
    /// # Errors
    ///
    /// When the store cannot be opened or written.
    pub async fn open(path: impl AsRef<Path>, groups: u64) -> Result<Self, StoreError> {
        let opener = Opener { node: None, new_node: NodeId(1), new_salt: 1, cluster: None, boot: 1 };
        let disk = Arc::new(RealDisk::open(path)?);
        let (store, _) = Store::open(disk, StoreConfig::default(), opener).await?;
        let mut bench = Self { store, groups, index: 0, dropped: 0 };
        bench.rebase().await?;
        Ok(bench)
    }

    /// Writes one entry of each payload, to one group after the other, and makes them durable together.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub async fn write(&mut self, payloads: &[Bytes]) -> Result<(), StoreError> {
        let mut records = Vec::with_capacity(payloads.len().min(self.groups as usize));
        for turn in payloads.chunks(self.groups as usize) {
            self.index += 1;
            for (group, payload) in (1..).zip(turn) {
                let body = WireEntryBody::Normal(payload.clone());
                let entries = vec![WireEntry { term: 1, index: self.index, body }];
                let (group, member) = (GroupId(group), MemberId(1));
                records.push(Record::Append { group, member, vote: VoteRecord::default(), entries });
            }
        }
        let appended = self.store.log.append(&records).await?;
        assert!(appended.refused.is_empty(), "refused: {:?}", appended.refused);
        self.store.log.sync().await?;
        if self.index - self.dropped > 100_000 / self.groups {
            self.rebase().await?;
        }
        Ok(())
    }

    /// Drops all entries, as a snapshot would let a group do.
    async fn rebase(&mut self) -> Result<(), StoreError> {
        self.dropped = self.index;
        let before = Place { index: self.index, term: 1 };
        let snapshot = super::SnapshotMeta {
            index: self.index,
            term: 1,
            voters: vec![MemberId(1)],
            learners: vec![],
            bytes: 0,
            crc: 0,
        };
        let base = |group| Record::Base {
            group: GroupId(group),
            member: MemberId(1),
            snapshot: KeptSnapshot::File(snapshot.clone()),
            vote: VoteRecord::default(),
            before,
            entries: vec![],
            durability: Durability::Fsync,
        };
        let records: Vec<_> = (1..=self.groups).map(base).collect();
        self.store.log.append(&records).await?;
        self.store.log.reclaim().await?;
        Ok(())
    }

    /// How long the log is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.store.log.size().bytes
    }
}
