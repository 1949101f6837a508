//! Whose directory it is: a small file, replaced as a whole.

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::frame::{checksum, u32_at};
use crate::disk::{Disk, DiskReason, replace};
use crate::id::NodeId;

/// Where it is.
pub(super) const IDENTITY_FILE: &str = "node";
const IDENTITY_VERSION: u32 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"RVID");
/// Magic, version, length of what follows, checksum of it all.
const HEADER_BYTES: usize = 16;
/// More than any version needs.
const FILE_BYTES_MAX: usize = 4096;
/// The boot of a directory whose log is not made yet; no machine has such a one.
const FOUNDING: [u8; 16] = [0xff; 16];

/// Whose directory it is, and how its last life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// The cluster the node has joined, once it has.
    pub(super) cluster: Option<[u8; 16]>,
    /// What the log's checksums start from.
    pub(super) salt: u32,
    /// The machine's boot in which the directory was opened last; all ones until its log was made, so that a log which is
    /// gone is told from one that never was.
    pub(super) boot: [u8; 16],
    /// Whether it was closed after that, with everything durable.
    pub(super) clean: bool,
}

impl Identity {
    /// A directory that no log was made in yet.
    pub(super) fn new(node: NodeId, cluster: Option<[u8; 16]>, salt: u32) -> Self {
        Self { node, cluster, salt, boot: FOUNDING, clean: false }
    }

    /// Whether a log was made in the directory.
    pub(super) fn has_log(&self) -> bool {
        self.boot != FOUNDING
    }

    fn encode(&self) -> Vec<u8> {
        let payload = postcard::to_stdvec(self).expect("an identity serialises");
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend(MAGIC.to_le_bytes());
        out.extend(IDENTITY_VERSION.to_le_bytes());
        out.extend((payload.len() as u32).to_le_bytes());
        let crc = checksum(checksum(0, &out), &payload);
        out.extend(crc.to_le_bytes());
        out.extend(payload);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |reason: &str| Err(StoreError::corrupt(IDENTITY_FILE, 0, reason));
        if bytes.len() < HEADER_BYTES || bytes[0..4] != MAGIC.to_le_bytes() {
            return corrupt("not the identity of a node");
        }
        let payload = &bytes[HEADER_BYTES..];
        if u32_at(bytes, 8) as usize != payload.len()
            || u32_at(bytes, 12) != checksum(checksum(0, &bytes[..12]), payload)
        {
            return corrupt("its length or checksum is wrong");
        }
        let found = u32_at(bytes, 4);
        if found > IDENTITY_VERSION {
            return Err(StoreError::NewerFormat {
                file: IDENTITY_FILE.into(),
                found,
                known: IDENTITY_VERSION,
            });
        }
        postcard::from_bytes(payload)
            .map_err(|error| StoreError::corrupt(IDENTITY_FILE, HEADER_BYTES as u64, error.to_string()))
    }

    /// The identity of a directory; `None` where none was written yet.
    pub(super) fn load(disk: &dyn Disk) -> Result<Option<Self>, StoreError> {
        match disk.read_at(IDENTITY_FILE, 0, FILE_BYTES_MAX) {
            Ok(bytes) => Self::decode(&bytes).map(Some),
            Err(error) if error.reason == DiskReason::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it the directory's.
    pub(super) async fn save(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        Ok(replace(disk, IDENTITY_FILE, &self.encode()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity =
        Identity { node: NodeId(300), cluster: Some([1; 16]), salt: 5, boot: [2; 16], clean: true };

    #[test]
    fn an_identity_has_these_golden_bytes() {
        let encoded = IDENTITY.encode();
        assert_eq!(encoded[..12], *b"RVID\x01\0\0\0\x25\0\0\0");
        assert_eq!(encoded[12..16], [132, 191, 210, 78], "the checksum");
        let mut golden = vec![172, 2, 1];
        golden.extend([1; 16]);
        golden.push(5);
        golden.extend([2; 16]);
        golden.push(1);
        assert_eq!(encoded[16..], golden);
        assert_eq!(Identity::decode(&encoded), Ok(IDENTITY));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let encoded = IDENTITY.encode();
        for bit in 0..encoded.len() * 8 {
            let mut bytes = encoded.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Identity::decode(&bytes), Err(StoreError::Corrupt { .. })), "bit {bit}");
        }
        for length in 0..encoded.len() {
            assert!(Identity::decode(&encoded[..length]).is_err(), "{length} bytes");
        }
    }
}
