//! Opening, closing and failing.

use super::*;
use crate::disk::DiskReason;

#[test]
fn what_was_synced_is_there_after_a_crash() {
    for seed in 0..20 {
        let disk = new_disk(seed);
        let (mut store, first) = open(&disk).unwrap();
        assert_eq!((first.node, first.groups.len(), first.lost_unsynced), (NodeId(9), 0, false));
        write(&mut store, &[base(GROUP), append(GROUP, 1, 1, 4)]);
        write(&mut store, &[append(GROUP, 2, 3, 3)]);
        disk.crash();
        let (_, recovered) = open(&disk).unwrap();
        let group = &recovered.groups[&GROUP];
        assert_eq!(indexes(&recovered), [1, 2, 3]);
        assert_eq!(group.entries[2], entries(2, 3, 3)[0]);
        assert_eq!((group.vote.term, group.durability), (2, Durability::Fsync));
        assert_eq!(recovered.torn, None);
    }
}

#[test]
fn a_directory_serves_one_store_at_a_time() {
    let disk = new_disk(1);
    let (store, _) = open(&disk).unwrap();
    match open(&disk) {
        Err(StoreError::Disk(error)) => assert!(matches!(error.reason, DiskReason::InUse { .. })),
        other => panic!("opened twice: {:?}", other.map(|opened| opened.1)),
    }
    drop(store);
    open(&disk).unwrap();
}

#[test]
fn a_real_directory_serves_one_store_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let disk = || Arc::new(crate::disk::RealDisk::open(directory.path()).unwrap());
    let (mut store, _) = done(Store::open(disk(), config(), opener())).unwrap();
    write(&mut store, &[base(GROUP), append(GROUP, 1, 1, 9)]);
    let refused = done(Store::open(disk(), config(), opener())).err().unwrap();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    done(store.close()).unwrap();
    let (_, recovered) = done(Store::open(disk(), config(), opener())).unwrap();
    assert_eq!(indexes(&recovered), (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused() {
    let disk = written(2);
    let open_as = |opener| done(Store::open(disk.disk(), config(), opener)).map(|_| ());
    let found = NodeId(9);
    let expected = NodeId(8);
    let stranger = Opener { node: Some(expected), ..opener() };
    assert_eq!(open_as(stranger), Err(StoreError::OtherNode { found, expected }));
    let member = Opener { cluster: Some(7), ..opener() };
    assert_eq!(open_as(member), Ok(()));
    assert_eq!(open_as(opener()), Ok(()), "whoever does not know its cluster may look");
    let stranger = Opener { cluster: Some(6), ..opener() };
    assert_eq!(open_as(stranger), Err(StoreError::OtherCluster { found: 7, expected: 6 }));
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.cluster, Some(7));
}

#[test]
fn unsynced_writes_may_be_lost_only_after_another_boot_without_a_close() {
    let disk = new_disk(1);
    let boot = |boot| {
        let (mut store, recovered) =
            done(Store::open(disk.disk(), config(), Opener { boot, ..opener() })).unwrap();
        done(store.begin_life(boot)).unwrap();
        (store, recovered)
    };
    let (store, _) = boot(1);
    drop(store);
    let (store, recovered) = boot(1);
    assert!(!recovered.lost_unsynced, "the same boot has its writes");
    drop(store);
    let (store, recovered) = boot(2);
    assert!(recovered.lost_unsynced);
    done(store.close()).unwrap();
    let (_, recovered) = boot(3);
    assert!(!recovered.lost_unsynced, "closed before");
}

/// The boot was noted when the log was open, and members that had lost their state only later: where the process ended in
/// between, they came back as if nothing had been lost.
#[test]
fn a_loss_is_seen_again_until_it_is_seen_to() {
    let disk = new_disk(1);
    let open = |boot| done(Store::open(disk.disk(), config(), Opener { boot, ..opener() })).unwrap();
    let (mut store, _) = open(1);
    done(store.begin_life(1)).unwrap();
    drop(store);
    for _ in 0..3 {
        assert!(open(2).1.lost_unsynced, "whoever opened it last has not got far");
    }
    let (mut store, recovered) = open(2);
    assert!(recovered.lost_unsynced);
    done(store.begin_life(2)).unwrap();
    drop(store);
    assert!(!open(2).1.lost_unsynced);
}

/// Pages whose sync failed may be gone from memory too, and an `Async` member came back with less than it had acknowledged.
#[test]
fn after_a_sync_that_failed_the_same_boot_proves_nothing() {
    let open = |disk: &SimDisk| done(Store::open(disk.disk(), config(), opener()));
    let begun = |seed| {
        let disk = new_disk(seed);
        let (mut store, _) = open(&disk).unwrap();
        done(store.begin_life(opener().boot)).unwrap();
        done(store.log.append(&[base(GROUP)])).unwrap();
        (disk, store)
    };
    let (disk, mut store) = begun(1);
    done(store.distrust()).unwrap();
    drop(store);
    assert!(open(&disk).unwrap().1.lost_unsynced);
    // In the end of a life, and in the beginning of the next.
    let (disk, store) = begun(2);
    disk.fail_syncs(1);
    assert!(done(store.close()).unwrap_err().is_failed_sync());
    assert!(open(&disk).unwrap().1.lost_unsynced);
    let (disk, store) = begun(3);
    drop(store);
    disk.fail_syncs(1);
    assert!(open(&disk).err().unwrap().is_failed_sync());
    assert!(open(&disk).unwrap().1.lost_unsynced);
    // What was closed in order has lost nothing.
    let (disk, store) = begun(4);
    done(store.close()).unwrap();
    disk.fail_syncs(1);
    assert!(open(&disk).err().unwrap().is_failed_sync());
    assert!(!open(&disk).unwrap().1.lost_unsynced);
}

#[test]
fn a_failed_write_or_sync_fences_the_log_for_ever() {
    let fail: [fn(&SimDisk); 3] =
        [|disk| disk.fail_writes(1), |disk| disk.fail_syncs(1), |disk| disk.set_bytes_max(Some(0))];
    for fail in fail {
        let disk = new_disk(1);
        let (mut store, _) = open(&disk).unwrap();
        write(&mut store, &[base(GROUP)]);
        fail(&disk);
        let records = [append(GROUP, 1, 1, 1)];
        let failed = done(store.log.append(&records)).map(|_| ()).and_then(|()| done(store.log.sync()));
        assert!(matches!(failed, Err(StoreError::Disk(_))), "{failed:?}");
        disk.set_bytes_max(None);
        for _ in 0..2 {
            assert!(matches!(done(store.log.append(&records)), Err(StoreError::Fenced { .. })));
            assert!(matches!(done(store.log.sync()), Err(StoreError::Fenced { .. })));
            assert!(matches!(done(store.log.write_mark()), Err(StoreError::Fenced { .. })));
            assert!(matches!(done(store.log.reclaim()), Err(StoreError::Fenced { .. })));
        }
        assert!(done(store.close()).is_err());
    }
}

/// The pages of a failed sync stay readable and clean: a process that starts again on them and syncs would call
/// durable what a crash then takes.
#[test]
fn what_recovery_gives_is_durable_even_after_a_failed_sync() {
    for seed in 0..20 {
        let disk = new_disk(seed);
        let (mut store, _) = open(&disk).unwrap();
        write(&mut store, &[base(GROUP), append(GROUP, 1, 1, 1)]);
        done(store.log.append(&[append(GROUP, 1, 2, 2)])).unwrap();
        disk.fail_syncs(1);
        assert!(done(store.log.sync()).is_err());
        disk.kill();
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(indexes(&recovered), [1, 2], "a page cache outlives its process");
        disk.crash();
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(indexes(&recovered), [1, 2]);
    }
}

#[test]
fn a_refused_record_leaves_the_rest_of_the_batch_alone() {
    let disk = new_disk(1);
    let (mut store, _) = open(&disk).unwrap();
    let other = GroupId(2);
    write(&mut store, &[base(GROUP), base(other)]);
    let records = [append(GROUP, 1, 3, 4), append(other, 1, 1, 2), append(GROUP, 1, 1, 1)];
    let appended = done(store.log.append(&records)).unwrap();
    assert_eq!(appended.refused.keys().copied().collect::<Vec<_>>(), [GROUP]);
    assert!(appended.refused[&GROUP].contains("gap"), "{:?}", appended.refused);
    done(store.close()).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(indexes(&recovered), []);
    assert_eq!(recovered.groups[&other].entries.len(), 2);
}

#[test]
fn a_large_group_of_records_is_cut_into_batches() {
    let disk = new_disk(1);
    let config = StoreConfig { batch_bytes: 100, ..config() };
    let (mut store, _) = done(Store::open(disk.disk(), config.clone(), opener())).unwrap();
    let mut records = vec![base(GROUP)];
    records.extend((1..=20).map(|index| append(GROUP, 1, index, index)));
    write(&mut store, &records);
    assert!(store.log.size().batches > 3);
    drop(store);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(indexes(&recovered), (1..=20).collect::<Vec<_>>());
    let record_bytes_max = 4 << 20;
    let config = StoreConfig { record_bytes_max, ..config };
    let (mut store, _) = done(Store::open(disk.disk(), config, opener())).unwrap();
    let mut large = append(GROUP, 1, 21, 21);
    if let Record::Append { entries, .. } = &mut large {
        entries[0].body = WireEntryBody::Normal(vec![0; record_bytes_max].into());
    }
    let appended = done(store.log.append(&[large])).unwrap();
    assert!(appended.refused[&GROUP].contains("over the limit of 4194304"));
}

#[test]
fn a_dropped_call_fences_the_log() {
    let disk = new_disk(1);
    let (mut store, _) = open(&disk).unwrap();
    done(store.log.append(&[base(GROUP)])).unwrap();
    disk.set_sync_latency(Some(Arc::new(|| Box::pin(std::future::pending()))));
    assert_eq!(store.log.sync().now_or_never(), None);
    disk.set_sync_latency(None);
    assert!(matches!(done(store.log.sync()), Err(StoreError::Fenced { .. })));
}

#[test]
fn segments_that_nobody_needs_are_removed_and_groups_that_hold_them_are_named() {
    let disk = new_disk(1);
    let (mut store, _) = open(&disk).unwrap();
    let (idle, gone) = (GroupId(2), GroupId(3));
    write(&mut store, &[base(GROUP), base(idle), base(gone), Record::Ended { group: gone, newest: MEMBER }]);
    let mut steps = 0;
    for index in 1..200 {
        let meta = SnapshotMeta { index, term: 1, voters: vec![], learners: vec![], bytes: 0, crc: 0 };
        let (before, vote) = (Place { index, term: 1 }, VoteRecord::default());
        let snapshot = KeptSnapshot::File(meta);
        let compacted = Record::Compacted {
            group: GROUP,
            member: MEMBER,
            snapshot,
            before,
            vote,
            durability: Durability::Fsync,
        };
        write(&mut store, &[append(GROUP, 1, index, index), compacted]);
        let wanted = store.log.rewrite_wanted();
        let rewritten: Vec<_> =
            wanted.iter().filter(|group| **group == idle).map(|group| base(*group)).collect();
        steps += rewritten.len();
        write(&mut store, &rewritten);
        done(store.log.reclaim()).unwrap();
    }
    let size = store.log.size();
    assert!(size.segments <= 6 && size.bytes < 3_000, "{size:?}");
    assert!(steps > 3);
    drop(store);
    assert!(disk.files().len() < 10);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.groups.keys().copied().collect::<Vec<_>>(), [GROUP, idle]);
    assert_eq!(recovered.ended, BTreeMap::from([(gone, MEMBER)]));
}

/// Segments went by a mark that was read but not durable; power failed, and the mark before it wanted them back.
#[test]
fn segments_go_only_by_a_mark_that_is_sure_to_stay() {
    for seed in 0..40 {
        let disk = new_disk(seed);
        let (mut store, _) = open(&disk).unwrap();
        for index in 1..8 {
            let (before, vote) = (Place { index, term: 1 }, VoteRecord::default());
            let base = Record::Base {
                group: GROUP,
                member: MEMBER,
                snapshot: KeptSnapshot::File(SnapshotMeta {
                    index,
                    term: 1,
                    voters: vec![],
                    learners: vec![],
                    bytes: 0,
                    crc: 0,
                }),
                vote,
                before,
                entries: entries(1, index + 1, index + 9),
                durability: Durability::Fsync,
            };
            write(&mut store, &[base]);
        }
        assert!(store.log.size().segments > 2);
        // The mark that lets the old segments go is written, and its sync fails.
        disk.fail_syncs(1);
        done(store.log.reclaim()).unwrap_err();
        disk.kill();
        drop(store);
        let (store, _) = open(&disk).unwrap();
        drop(store);
        disk.crash();
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.groups[&GROUP].entries.back().map(|entry| entry.index), Some(16), "seed {seed}");
    }
}
