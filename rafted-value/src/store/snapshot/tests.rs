//! Snapshots on a simulated disk.

use proptest::prelude::*;

use super::*;
use crate::sim::SimDisk;
use crate::store::tests::{GROUP, MEMBER, done, new_disk};
use crate::store::{Place, SnapshotMeta};

const CHUNK: usize = 64;

fn folder(disk: &SimDisk) -> SnapshotFolder {
    SnapshotFolder::open(disk.disk(), CHUNK).unwrap()
}

fn name(index: u64) -> SnapshotFile {
    SnapshotFile { group: GROUP, member: MEMBER, index }
}

fn path(index: u64) -> String {
    format!("snap/{:016x}-{:016x}-{index:016x}.snap", GROUP.0, MEMBER.0)
}

fn write(folder: &SnapshotFolder, member: MemberId, index: u64, state: &[u8]) -> SnapshotMeta {
    let (at, voters) = (Place { index, term: 3 }, vec![MemberId(1), member]);
    let mut writer = folder.begin((GROUP, member), at, voters, vec![MemberId(2)]).unwrap();
    for piece in state.chunks(50) {
        writer.write(piece).unwrap();
    }
    done(writer.finish()).unwrap()
}

fn read(reader: &SnapshotReader) -> Result<Vec<u8>, StoreError> {
    let mut state = Vec::new();
    reader.read(|piece| state.extend_from_slice(piece))?;
    Ok(state)
}

/// Half of it compresses and half does not.
fn state() -> Vec<u8> {
    let noise = (0..150_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    vec![7; 150].into_iter().chain(noise).collect()
}

#[test]
fn a_snapshot_is_read_back_whole_and_chunk_by_chunk() {
    let disk = new_disk(1);
    let folder = folder(&disk);
    let state = state();
    let meta = write(&folder, MEMBER, 9, &state);
    disk.crash();
    let folder = SnapshotFolder::open(disk.disk(), CHUNK).unwrap();
    let reader = folder.read(name(9)).unwrap();
    assert_eq!(reader.head().meta, meta);
    assert_eq!((meta.bytes, meta.voters.len(), meta.learners.len()), (300, 2, 1));
    assert_eq!(read(&reader).unwrap(), state);
    let mut chunks = Vec::new();
    reader.read(|chunk| chunks.push(chunk.to_vec())).unwrap();
    assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 64, 64, 44]);
    assert_eq!(chunks.concat(), state);
    assert!(disk.files()[&path(9)].len() < 300, "half of it is compressed");
}

#[test]
fn a_snapshot_is_read_in_pieces_of_any_length() {
    let disk = new_disk(1);
    let folder = folder(&disk);
    let state = state();
    let meta = write(&folder, MEMBER, 9, &state);
    let pinned = KeptFile::new(&folder, name(9), meta).pin();
    for length in [1, 7, 63, 64, 65, 128, 300, 1000] {
        // Backwards as well: who asks again asks for what came before.
        for start in (0..state.len()).step_by(length).chain((0..state.len()).rev().step_by(41)) {
            let piece = pinned.read_piece(start as u64, length).unwrap();
            assert_eq!(piece[..], state[start..state.len().min(start + length)], "{length} bytes at {start}");
        }
    }
    assert!(pinned.read_piece(300, 64).unwrap().is_empty());
    assert!(pinned.read_piece(u64::MAX, usize::MAX).unwrap().is_empty());
}

/// Whole pieces that come before the damage are what was written, and no piece is anything else.
#[test]
fn a_piece_of_a_damaged_snapshot_is_what_was_written_or_an_error() {
    let disk = new_disk(1);
    let state = state();
    let meta = write(&folder(&disk), MEMBER, 9, &state);
    let bytes = disk.files()[&path(9)].clone();
    for bit in 0..bytes.len() as u64 * 8 {
        let disk = new_disk(1);
        disk.put(&path(9), Some(bytes.clone()));
        let folder = folder(&disk);
        let pinned = KeptFile::new(&folder, name(9), meta.clone()).pin();
        // It is open when the bit flips.
        pinned.read_piece(0, 1).unwrap();
        assert!(disk.flip_bit(&path(9), bit));
        for start in (0..state.len()).step_by(50).rev() {
            match pinned.read_piece(start as u64, 50) {
                Ok(piece) => assert_eq!(piece[..], state[start..start + 50], "bit {bit}"),
                Err(StoreError::Corrupt { file, .. }) => assert_eq!(file, path(9)),
                Err(error) => panic!("bit {bit}: {error}"),
            }
        }
    }
}

#[test]
fn a_piece_of_a_snapshot_that_is_cut_anywhere_is_what_was_written_or_an_error() {
    let disk = new_disk(1);
    let state = state();
    let meta = write(&folder(&disk), MEMBER, 9, &state);
    let bytes = disk.files()[&path(9)].clone();
    for (length, open) in (0..bytes.len()).flat_map(|length| [(length, false), (length, true)]) {
        let disk = new_disk(1);
        disk.put(&path(9), Some(bytes.clone()));
        let folder = folder(&disk);
        let pinned = KeptFile::new(&folder, name(9), meta.clone()).pin();
        if open {
            pinned.read_piece(0, 1).unwrap();
        }
        disk.put(&path(9), Some(bytes[..length].to_vec()));
        let mut damaged = 0;
        for start in (0..state.len()).step_by(50) {
            match pinned.read_piece(start as u64, 50) {
                Ok(piece) => assert_eq!(piece[..], state[start..start + 50], "{length} bytes, open: {open}"),
                Err(StoreError::Corrupt { file, .. }) if file == path(9) => damaged += 1,
                Err(error) => panic!("{length} bytes, open: {open}: {error}"),
            }
        }
        assert!(damaged > 0, "{length} bytes, open: {open}: nobody noticed");
    }
}

#[test]
fn another_snapshot_in_place_of_a_pinned_one_is_not_given_out() {
    let disk = new_disk(1);
    let folder = folder(&disk);
    let meta = write(&folder, MEMBER, 9, &state());
    let pinned = KeptFile::new(&folder, name(9), meta).pin();
    write(&folder, MEMBER, 9, b"another");
    let error = pinned.read_piece(0, 1).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file, .. } if *file == path(9)), "{error}");
}

fn prune(folder: &SnapshotFolder, used: u64) -> usize {
    done(folder.remove(&folder.unneeded(name(used)))).unwrap()
}

#[test]
fn a_snapshot_that_is_read_stays_until_it_is_not_and_newer_ones_are_pruned() {
    let disk = new_disk(1);
    let folder = folder(&disk);
    let state = state();
    let kept = KeptFile::new(&folder, name(1), write(&folder, MEMBER, 1, &state));
    let (first, second) = (kept.pin(), kept.pin());
    for index in 2..=5 {
        write(&folder, MEMBER, index, &state);
        prune(&folder, index);
    }
    let there = || folder.of_group(GROUP).iter().map(|file| file.index).collect::<Vec<_>>();
    assert_eq!(there(), [1, 4, 5]);
    assert_eq!(first.read_piece(0, 300).unwrap()[..], state[..]);
    drop(first);
    prune(&folder, 5);
    assert_eq!(there(), [1, 4, 5], "it is read by another");
    drop(second);
    assert_eq!(prune(&folder, 5), 1);
    assert_eq!(there(), [4, 5]);
}

#[test]
fn a_snapshot_has_these_golden_bytes() {
    let disk = new_disk(1);
    write(&folder(&disk), MEMBER, 9, b"abcdefgh");
    let golden = [
        82, 86, 83, 78, 1, 0, 0, 0, 35, 0, 0, 0, 254, 64, 88,
        29, // magic, version, length of the body, checksum
        1, 5, 9, 3, 2, 1, 5, 1, 2, 0, 64, // group, member, place, members, compression, chunk bytes
        8, 0, 0, 0, 0, 0, 0, 0, 183, 33, 148, 10, // bytes and checksum of the state
        20, 0, 0, 0, 0, 0, 0, 0, 102, 245, 74, 81, // bytes and checksum as stored
        8, 0, 0, 0, 8, 0, 0, 0, 133, 135, 192, 5, // lengths and checksum of the chunk
        97, 98, 99, 100, 101, 102, 103, 104,
    ];
    assert_eq!(disk.files()[&path(9)], golden);
}

#[test]
fn every_flipped_bit_is_corrupt_and_names_the_file() {
    let disk = new_disk(1);
    write(&folder(&disk), MEMBER, 9, &state());
    let bytes = disk.files()[&path(9)].clone();
    for bit in 0..bytes.len() as u64 * 8 {
        let disk = new_disk(1);
        disk.put(&path(9), Some(bytes.clone()));
        assert!(disk.flip_bit(&path(9), bit));
        let folder = folder(&disk);
        match folder.read(name(9)).and_then(|reader| read(&reader)) {
            Err(StoreError::Corrupt { file, .. }) => assert_eq!(file, path(9)),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn a_snapshot_that_is_cut_or_has_grown_is_corrupt() {
    let disk = new_disk(1);
    write(&folder(&disk), MEMBER, 9, &state());
    let bytes = disk.files()[&path(9)].clone();
    for length in (0..bytes.len()).chain([bytes.len() + 1]) {
        let mut bytes = bytes.clone();
        bytes.resize(length, 0);
        disk.put(&path(9), Some(bytes));
        let read = folder(&disk).read(name(9)).and_then(|reader| read(&reader));
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{length} bytes: {read:?}");
    }
}

#[test]
fn a_snapshot_under_another_name_or_of_a_newer_format_is_refused() {
    let disk = new_disk(1);
    write(&folder(&disk), MEMBER, 9, &state());
    let mut bytes = disk.files()[&path(9)].clone();
    disk.put(&path(8), Some(bytes.clone()));
    let error = folder(&disk).read(name(8)).err().unwrap();
    assert!(error.to_string().contains(&format!("it says that it is {}", path(9))), "{error}");
    bytes[4] = 2;
    let body = u32_at(&bytes, 8) as usize;
    let crc = checksum(checksum(0, &bytes[..12]), &bytes[16..16 + body]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.put(&path(9), Some(bytes));
    let newer = StoreError::NewerFormat { file: path(9), found: 2, known: 1 };
    assert_eq!(folder(&disk).read(name(9)).err(), Some(newer));
}

/// FAULTS 6: a snapshot was written in place, and one that a crash had cut made a restart impossible although an older
/// one was there.
#[test]
fn a_crash_while_a_snapshot_is_written_leaves_the_one_before() {
    for seed in 0..50 {
        let disk = new_disk(seed);
        let old = state();
        write(&folder(&disk), MEMBER, 9, &old);
        let before = folder(&disk);
        let mut writer = before.begin((GROUP, MEMBER), Place { index: 12, term: 3 }, vec![], vec![]).unwrap();
        writer.write(&[3; 200]).unwrap();
        disk.crash();
        let after = folder(&disk);
        assert_eq!(disk.files().len(), 1, "the temporary file is gone");
        assert_eq!(after.of_group(GROUP), [name(9)]);
        assert_eq!(read(&after.read(name(9)).unwrap()).unwrap(), old);
    }
}

#[test]
fn the_newest_two_and_the_one_in_use_are_kept() {
    let disk = new_disk(1);
    let folder = folder(&disk);
    let earlier = MemberId(4);
    write(&folder, earlier, 30, b"of a member before");
    for index in [3, 6, 9, 12] {
        write(&folder, MEMBER, index, b"x");
    }
    let kept = |folder: &SnapshotFolder| -> Vec<u64> {
        folder.of_group(GROUP).into_iter().map(|file| file.index).collect()
    };
    assert_eq!(prune(&folder, 6), 2, "the earlier member's and the oldest");
    assert_eq!(kept(&folder), [6, 9, 12]);
    assert_eq!(prune(&folder, 12), 1);
    assert_eq!(kept(&folder), [9, 12]);
    assert_eq!(kept(&SnapshotFolder::open(disk.disk(), CHUNK).unwrap()), [9, 12]);
    assert_eq!(done(folder.remove(&folder.of_ended(GROUP, MEMBER))), Ok(2));
    assert_eq!(folder.of_group(GROUP), []);
    assert_eq!(disk.files().len(), 0);
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_no_name() {
    let fail: [fn(&SimDisk); 3] =
        [|disk| disk.fail_writes(1), |disk| disk.fail_syncs(1), |disk| disk.set_bytes_max(Some(100))];
    for fail in fail {
        let disk = new_disk(1);
        let folder = folder(&disk);
        let mut writer = folder.begin((GROUP, MEMBER), Place { index: 12, term: 3 }, vec![], vec![]).unwrap();
        fail(&disk);
        let written = writer.write(&state()).and_then(|()| done(writer.finish()).map(|_| ()));
        assert!(matches!(written, Err(StoreError::Disk(_))), "{written:?}");
        assert_eq!(folder.of_group(GROUP), []);
        assert!(!disk.files().contains_key(&path(12)));
    }
}

proptest! {
    #[test]
    fn any_state_is_read_back(state in proptest::collection::vec(0..4_u8, 0..1_000), piece in 1..300_usize) {
        let disk = new_disk(1);
        let folder = folder(&disk);
        let mut writer = folder.begin((GROUP, MEMBER), Place { index: 1, term: 1 }, vec![], vec![]).unwrap();
        for piece in state.chunks(piece) {
            writer.write(piece).unwrap();
        }
        done(writer.finish()).unwrap();
        prop_assert_eq!(read(&folder.read(name(1)).unwrap()).unwrap(), state);
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let disk = new_disk(1);
        for whole in [false, true] {
            if whole && bytes.len() > 16 {
                // A head whose checksum is right.
                bytes[..8].copy_from_slice(b"RVSN\x01\0\0\0");
                let body = (bytes.len() as u32 - 16).to_le_bytes();
                bytes[8..12].copy_from_slice(&body);
                let crc = checksum(checksum(0, &bytes[..12]), &bytes[16..]);
                bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            }
            disk.put(&path(9), Some(bytes.clone()));
            let read = folder(&disk).read(name(9)).and_then(|reader| read(&reader));
            let corrupt = matches!(read, Err(StoreError::Corrupt { .. }));
            prop_assert!(corrupt);
        }
    }
}
