//! What becomes of a log that somebody else has written to.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::{pending, ready};

use super::*;
use crate::store::frame::{Header, checksum};

const SALT: u32 = 0x1234_5678;

fn corrupt_file(disk: &SimDisk) -> String {
    let before = disk.files();
    match open(disk) {
        Err(StoreError::Corrupt { file, .. }) => {
            assert_eq!(disk.files(), before, "what is corrupt is left as it is");
            file
        }
        other => panic!("not corrupt: {:?}", other.map(|opened| opened.1)),
    }
}

fn segment(number: u64) -> String {
    format!("log/{number:016x}.seg")
}

#[test]
fn every_flipped_bit_gives_an_error_or_what_was_written() {
    let disk = written(8);
    let files = disk.files();
    let (store, whole) = open(&disk).unwrap();
    drop(store);
    let (mut errors, mut intact) = (0, 0);
    for (name, bytes) in &files {
        // Between its slots nothing of the mark is ever read.
        let read = |bit: &u64| name != "log/mark" || !(64 * 8..4096 * 8).contains(bit);
        for bit in (0..bytes.len() as u64 * 8).filter(read) {
            let disk = new_disk(1);
            for (name, bytes) in &files {
                disk.put(name, Some(bytes.clone()));
            }
            assert!(disk.flip_bit(name, bit));
            match open(&disk) {
                Ok((_, recovered)) => {
                    assert_eq!(recovered.groups, whole.groups, "bit {bit} of {name}");
                    assert_eq!(recovered.torn, None, "bit {bit} of {name}");
                    intact += 1;
                }
                Err(StoreError::Corrupt { file, .. }) => {
                    assert!(file == *name || name.ends_with("mark"), "bit {bit} of {name}, not of {file}");
                    errors += 1;
                }
                Err(error) => panic!("bit {bit} of {name}: {error}"),
            }
        }
    }
    assert!(errors > 1_000 && intact > 100, "{errors} errors, {intact} intact");
}

/// Without its newest mark a log proves less: what is flipped at its end may be taken for a torn tail, never what is
/// before it.
#[test]
fn a_flipped_bit_before_the_last_batch_is_no_torn_tail() {
    let disk = new_disk(1);
    let (mut store, _) = done(Store::open(disk.disk(), StoreConfig::default(), opener())).unwrap();
    write(&mut store, &[base(GROUP)]);
    for index in 1..4 {
        write(&mut store, &[append(GROUP, 1, index, index)]);
    }
    drop(store);
    let files = disk.files();
    let bytes = files[&segment(0)].len() as u64;
    let last = (0..bytes).rev().find(|at| files[&segment(0)][*at as usize..].starts_with(b"RVLB")).unwrap();
    for bit in 0..bytes * 8 {
        let disk = new_disk(1);
        for (name, bytes) in &files {
            disk.put(name, Some(bytes.clone()));
        }
        assert!(disk.flip_bit(&segment(0), bit));
        match open(&disk) {
            Ok((_, recovered)) => {
                assert!(bit / 8 >= last, "bit {bit}");
                assert_eq!(indexes(&recovered), [1, 2]);
                assert_eq!(recovered.torn.unwrap().offset, last);
            }
            Err(StoreError::Corrupt { file, .. }) => assert_eq!((file, bit / 8 < last), (segment(0), true)),
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
}

#[test]
fn a_missing_segment_is_named_wherever_it_was() {
    let segments = written(24).files().keys().filter(|name| name.ends_with(".seg")).count() as u64;
    assert!(segments > 3);
    for missing in 0..segments {
        let disk = written(24);
        disk.put(&segment(missing), None);
        assert_eq!(corrupt_file(&disk), segment(missing));
    }
}

#[test]
fn a_segment_that_is_a_copy_of_another_is_corrupt() {
    let disk = written(24);
    let files = disk.files();
    let segments = files.keys().filter(|name| name.ends_with(".seg")).count() as u64;
    disk.put(&segment(segments), Some(files[&segment(1)].clone()));
    assert_eq!(corrupt_file(&disk), segment(segments));
    let disk = written(24);
    disk.put(&segment(1), Some(files[&segment(2)].clone()));
    assert_eq!(corrupt_file(&disk), segment(1));
}

#[test]
fn a_missing_mark_or_identity_is_corrupt() {
    for file in ["log/mark", "node"] {
        let disk = written(4);
        disk.put(file, None);
        assert_eq!(corrupt_file(&disk), file);
    }
}

/// A directory of which half was copied: a node that began with a new log would have forgotten what it has acknowledged and
/// for whom it has voted.
#[test]
fn a_log_that_is_gone_as_a_whole_is_corrupt_and_no_new_one_is_made() {
    for closed in [true, false] {
        let disk = if closed { written(4) } else { new_disk(1) };
        if !closed {
            let (mut store, _) = open(&disk).unwrap();
            write(&mut store, &[base(GROUP)]);
        }
        for file in disk.files().into_keys().filter(|name| name.starts_with("log/")) {
            disk.put(&file, None);
        }
        assert_eq!(corrupt_file(&disk), "log/mark");
        assert!(disk.files().keys().all(|name| !name.starts_with("log/")), "closed: {closed}");
    }
}

/// The identity is written before the log is made, and a crash may come in between.
#[test]
fn a_crash_while_a_directory_is_made_leaves_one_that_opens() {
    for syncs in 0..10 {
        for seed in 0..10 {
            let disk = new_disk(seed);
            let left = AtomicU32::new(syncs);
            disk.set_sync_latency(Some(Arc::new(move || {
                let more =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                if more.is_ok() { ready(()).boxed() } else { pending().boxed() }
            })));
            let opened = Store::open(disk.disk(), config(), opener()).now_or_never();
            assert_eq!(opened.is_some(), syncs > 6, "{syncs} syncs");
            disk.crash();
            disk.set_sync_latency(None);
            assert_eq!(open(&disk).map(|_| ()), Ok(()), "power failed after {syncs} syncs, seed {seed}");
        }
    }
}

#[test]
fn strange_files_are_named_and_left_alone() {
    let disk = written(4);
    let strangers = ["log/notes.txt", "log/1.seg", "snap/x.snap"];
    for stranger in strangers {
        disk.put(stranger, Some(b"mine".to_vec()));
    }
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.strangers, ["log/1.seg", "log/notes.txt", "snap/x.snap"]);
    assert!(strangers.iter().all(|stranger| disk.files()[*stranger] == b"mine"));
}

#[test]
fn zeros_after_the_end_are_cut_off() {
    let disk = written(3);
    let mut bytes = disk.files()[&segment(0)].clone();
    let end = bytes.len();
    bytes.resize(end + 5_000, 0);
    disk.put(&segment(0), Some(bytes));
    let (mut store, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.torn.map(|torn| (torn.offset, torn.bytes)), Some((end as u64, 5_000)));
    assert_eq!(disk.files()[&segment(0)].len(), end);
    write(&mut store, &[append(GROUP, 1, 3, 3)]);
    drop(store);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!((indexes(&recovered), recovered.torn), (vec![1, 2, 3], None));
}

#[test]
fn a_newer_format_is_named_with_its_version() {
    let disk = written(3);
    let name = segment(0);
    let mut bytes = disk.files()[&name].clone();
    bytes[4] = 2;
    let crc = checksum(SALT, &bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    disk.put(&name, Some(bytes));
    let newer = StoreError::NewerFormat { file: name, found: 2, known: 1 };
    assert_eq!(open(&disk).err(), Some(newer));
}

#[test]
fn records_that_a_whole_batch_should_not_hold_are_corrupt() {
    let gap = postcard::to_stdvec(&vec![append(GROUP, 1, 9, 9)]).unwrap();
    for (payload, reason) in [
        (gap, "gap"),
        (vec![1, 200], "does not decode"),
        (vec![0, 7], "1 bytes after the last record"),
        (vec![255; 10], "does not decode"),
    ] {
        let disk = written(3);
        let mut bytes = disk.files()[&segment(0)].clone();
        let header = Header {
            payload_bytes: payload.len() as u32,
            sequence: 4,
            durable_to: 3,
            payload_crc: checksum(SALT, &payload),
        };
        bytes.extend(header.write(SALT));
        bytes.extend(payload);
        disk.put(&segment(0), Some(bytes));
        let error = open(&disk).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// A client may send whatever it likes as an entry, such as a batch that calls much durable.
#[test]
fn a_payload_that_looks_like_a_batch_proves_nothing() {
    let disk = new_disk(1);
    let (mut store, _) = open(&disk).unwrap();
    write(&mut store, &[base(GROUP)]);
    let fake = Header { payload_bytes: 0, sequence: 50, durable_to: 49, payload_crc: 0 };
    let body = WireEntryBody::Normal(Bytes::copy_from_slice(&fake.write(0)));
    let entries = vec![WireEntry { term: 1, index: 1, body }];
    done(store.log.append(&[Record::Append {
        group: GROUP,
        member: MEMBER,
        vote: VoteRecord::default(),
        entries,
    }]))
    .unwrap();
    drop(store);
    let files = disk.files();
    let bytes = files[&segment(0)].len();
    // The checksum of the payload is wrong, and the entry is whole.
    assert!(disk.flip_bit(&segment(0), (bytes as u64 - 40) * 8));
    let (_, recovered) = open(&disk).unwrap();
    assert!(recovered.torn.is_some());
    assert_eq!(indexes(&recovered), []);
}
