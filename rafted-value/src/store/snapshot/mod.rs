//! Snapshot files: a versioned head, and the state in compressed chunks that are checked one by one.

mod folder;
mod kept;
mod reader;
mod writer;

pub(crate) use self::folder::{SnapshotFile, SnapshotFolder};
pub(crate) use self::kept::{KeptFile, PinnedFile};
pub(crate) use self::reader::SnapshotReader;
pub(crate) use self::writer::SnapshotWriter;

use serde::{Deserialize, Serialize};

use super::config::SNAPSHOT_CHUNK_BYTES_MAX;
use super::frame::{checksum, u32_at};
use super::{SnapshotMeta, StoreError};
use crate::id::{GroupId, MemberId};

/// The folder of the snapshots.
const SNAPSHOT_FOLDER: &str = "snap";
/// The newest version of snapshot files that is known.
const SNAPSHOT_VERSION: u32 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"RVSN");
/// Magic, version, length of the head's body, checksum of it all.
const FIXED_BYTES: usize = 16;
/// The largest body of a head: members are few, and their number is checked by this.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What is before each chunk: its length, its stored length, and a checksum of both, its position and what is stored.
const CHUNK_HEAD_BYTES: usize = 12;

/// What a snapshot file says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    /// What the snapshot is of, with the length and checksum of the state.
    pub(crate) meta: SnapshotMeta,
    /// The length of every chunk of the state but the last.
    pub(crate) chunk_bytes: u32,
    /// The length of all chunks as they are stored.
    pub(crate) stored_bytes: u64,
    /// CRC-32C of all chunks as they are stored.
    pub(crate) stored_crc: u32,
}

/// The numbers of a head whose values are known only at the end; as long as they are in any case.
#[derive(Serialize, Deserialize)]
struct Totals {
    bytes: [u8; 8],
    crc: [u8; 4],
    stored_bytes: [u8; 8],
    stored_crc: [u8; 4],
}

/// A head as it is stored: its length does not depend on the totals, so that it can be written first and again last.
#[derive(Serialize, Deserialize)]
struct Body {
    group: GroupId,
    member: MemberId,
    index: u64,
    term: u64,
    voters: Vec<MemberId>,
    learners: Vec<MemberId>,
    compression: Compression,
    chunk_bytes: u32,
    totals: Totals,
}

/// How chunks are stored; one that would not get smaller is stored as it is.
#[derive(Serialize, Deserialize)]
enum Compression {
    Lz4Block,
}

impl SnapshotHead {
    fn encode(&self) -> Vec<u8> {
        let SnapshotMeta { index, term, voters, learners, bytes, crc } = self.meta.clone();
        let totals = Totals {
            bytes: bytes.to_le_bytes(),
            crc: crc.to_le_bytes(),
            stored_bytes: self.stored_bytes.to_le_bytes(),
            stored_crc: self.stored_crc.to_le_bytes(),
        };
        let body = Body {
            group: self.group,
            member: self.member,
            index,
            term,
            voters,
            learners,
            compression: Compression::Lz4Block,
            chunk_bytes: self.chunk_bytes,
            totals,
        };
        let body = postcard::to_stdvec(&body).expect("a head serialises");
        let mut out = Vec::with_capacity(FIXED_BYTES + body.len());
        out.extend(MAGIC.to_le_bytes());
        out.extend(SNAPSHOT_VERSION.to_le_bytes());
        out.extend((body.len() as u32).to_le_bytes());
        let crc = checksum(checksum(0, &out), &body);
        out.extend(crc.to_le_bytes());
        out.extend(body);
        out
    }

    /// The head at the start of a file, and its length.
    fn decode(file: &str, bytes: &[u8]) -> Result<(Self, u64), StoreError> {
        let corrupt = |reason: &str| Err(StoreError::corrupt(file, 0, reason));
        if bytes.len() < FIXED_BYTES || bytes[0..4] != MAGIC.to_le_bytes() {
            return corrupt("not a snapshot");
        }
        let length = u32_at(bytes, 8) as usize;
        let Some(body) = bytes[FIXED_BYTES..].get(..length) else { return corrupt("the head is cut off") };
        if u32_at(bytes, 12) != checksum(checksum(0, &bytes[..12]), body) {
            return corrupt("the head's checksum is wrong");
        }
        let found = u32_at(bytes, 4);
        if found > SNAPSHOT_VERSION {
            return Err(StoreError::NewerFormat { file: file.to_owned(), found, known: SNAPSHOT_VERSION });
        }
        let Body { group, member, index, term, voters, learners, compression, chunk_bytes, totals } =
            postcard::from_bytes(body).map_err(|error| StoreError::corrupt(file, 0, error.to_string()))?;
        let Compression::Lz4Block = compression;
        if chunk_bytes == 0 || chunk_bytes as usize > SNAPSHOT_CHUNK_BYTES_MAX {
            return corrupt(&format!("chunks of {chunk_bytes} bytes"));
        }
        let (bytes, crc) = (u64::from_le_bytes(totals.bytes), u32::from_le_bytes(totals.crc));
        let meta = SnapshotMeta { index, term, voters, learners, bytes, crc };
        let (stored_bytes, stored_crc) =
            (u64::from_le_bytes(totals.stored_bytes), u32::from_le_bytes(totals.stored_crc));
        let head = Self { group, member, meta, chunk_bytes, stored_bytes, stored_crc };
        Ok((head, (FIXED_BYTES + length) as u64))
    }
}

/// What is before a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ChunkHead {
    bytes: u32,
    stored_bytes: u32,
    crc: u32,
}

impl ChunkHead {
    /// The head of the chunk at `position` which is stored as `stored`.
    fn new(position: u64, bytes: usize, stored: &[u8]) -> Self {
        let (bytes, stored_bytes) = (bytes as u32, stored.len() as u32);
        Self { bytes, stored_bytes, crc: Self::crc(position, bytes, stored) }
    }

    fn crc(position: u64, bytes: u32, stored: &[u8]) -> u32 {
        let lengths = (u64::from(bytes) << 32) | stored.len() as u64;
        checksum(checksum(checksum(0, &position.to_le_bytes()), &lengths.to_le_bytes()), stored)
    }

    fn write(self) -> [u8; CHUNK_HEAD_BYTES] {
        let mut out = [0; CHUNK_HEAD_BYTES];
        out[0..4].copy_from_slice(&self.bytes.to_le_bytes());
        out[4..8].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[8..12].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    fn read(bytes: &[u8; CHUNK_HEAD_BYTES]) -> Self {
        Self { bytes: u32_at(bytes, 0), stored_bytes: u32_at(bytes, 4), crc: u32_at(bytes, 8) }
    }
}

#[cfg(test)]
mod tests;
