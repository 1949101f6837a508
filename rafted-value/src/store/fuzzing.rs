//! Files of a directory whose bytes a fuzzer chooses, read as a node reads them when it starts.
//!
//! What is inside a checksum is put behind one that is right, so that the fuzzer gets past it.

use std::sync::Arc;

use futures_util::FutureExt;

use super::frame::{HEADER_BYTES, Header, checksum};
use super::identity::{IDENTITY_FILE, Identity};
use super::segment::segment_file;
use super::snapshot::SnapshotFolder;
use super::{Opener, Store, StoreConfig, StoreError, look_at};
use crate::disk::Disk;
use crate::id::{GroupId, MemberId, NodeId};
use crate::open::read_member;
use crate::registry::Registry;
use crate::sim::{NetConfig, Sim, SimDisk};
use crate::store::SnapshotFile;

const SALT: u32 = 7;

fn new_disk() -> SimDisk {
    SimDisk::new(Sim::new(1, NetConfig::default()).rng())
}

fn opener() -> Opener {
    Opener { node: None, new_node: NodeId(9), new_salt: SALT, cluster: None, boot: 1 }
}

/// Opens a directory twice: the same must be there, or it is an error that names a file.
fn open(disk: &SimDisk) {
    let open = || {
        let (store, recovered) =
            Store::open(disk.disk(), StoreConfig::default(), opener()).now_or_never().expect("no latency")?;
        for (id, group) in recovered.groups.clone() {
            // It may speak of snapshots that are not there.
            let _ = read_member(&store.snapshots, &Registry::new(), id, group);
        }
        Ok::<_, StoreError>(recovered.groups)
    };
    let before = disk.files();
    match open() {
        Ok(first) => assert_eq!(open().expect("it opened before"), first),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let log = |files: std::collections::BTreeMap<String, Vec<u8>>| -> Vec<_> {
                files.into_iter().filter(|(name, _)| name.starts_with("log/")).collect()
            };
            assert_eq!(log(disk.files()), log(before), "what cannot be read is overwritten");
        }
    }
}

/// A directory with a new log.
fn made() -> SimDisk {
    let disk = new_disk();
    let opened = Store::open(disk.disk(), StoreConfig::default(), opener()).now_or_never();
    drop(opened.expect("no latency").expect("a new directory opens"));
    disk
}

/// The file that says whose a directory is.
pub(crate) fn identity(bytes: &[u8]) {
    let disk = new_disk();
    disk.put(IDENTITY_FILE, Some(bytes.to_vec()));
    let disk: Arc<dyn Disk> = disk.disk();
    let read = Identity::load(&*disk);
    assert!(read.is_err() || read == Identity::load(&*disk));
}

/// The mark of a log.
pub(crate) fn mark(bytes: &[u8]) {
    let disk = made();
    disk.put("log/mark", Some(bytes.to_vec()));
    open(&disk);
}

/// What follows in a segment after a batch that is whole.
pub(crate) fn segment(bytes: &[u8]) {
    let disk = made();
    let mut segment = batch(&[0]);
    segment.extend_from_slice(bytes);
    disk.put(&segment_file(0), Some(segment));
    open(&disk);
}

/// The records of a batch.
pub(crate) fn records(bytes: &[u8]) {
    let disk = made();
    disk.put(&segment_file(0), Some(batch(bytes)));
    let read = look_at(&disk.disk(), GroupId(300));
    open(&disk);
    if let Ok(Some((group, _))) = read {
        let again = look_at(&disk.disk(), GroupId(300)).expect("it was read before");
        assert_eq!(again.map(|(group, _)| group), Some(group));
    }
}

fn batch(payload: &[u8]) -> Vec<u8> {
    let payload_crc = checksum(SALT, payload);
    let header = Header { payload_bytes: payload.len() as u32, sequence: 1, durable_to: 0, payload_crc };
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend(header.write(SALT));
    out.extend_from_slice(payload);
    out
}

/// A snapshot file, as it is and with a head whose checksum is right.
pub(crate) fn snapshot(bytes: &[u8]) {
    let name = SnapshotFile { group: GroupId(1), member: MemberId(5), index: 9 };
    let mut bytes = bytes.to_vec();
    for mended in [false, true] {
        if mended {
            let Some(length) = bytes.get(8..12).map(|length| length.try_into().expect("four bytes")) else {
                return;
            };
            let end = 16_usize.saturating_add(u32::from_le_bytes(length) as usize);
            let Some(body) = bytes.get(16..end) else { return };
            let crc = checksum(checksum(0, &bytes[..12]), body);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        let disk = new_disk();
        disk.put("snap/0000000000000001-0000000000000005-0000000000000009.snap", Some(bytes.clone()));
        let folder = SnapshotFolder::look(disk.disk(), 64).expect("it is listed");
        let mut state = 0;
        let read = folder.read(name).and_then(|reader| {
            let expected = reader.head().meta.bytes;
            reader.read(|piece| state += piece.len() as u64).map(|()| expected)
        });
        if let Ok(expected) = read {
            assert_eq!(state, expected);
        }
    }
}
