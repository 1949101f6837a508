//! What a crash, a kill and a fault leave of a simulated disk.

use std::time::Duration;

use futures_util::FutureExt;

use super::super::{NetConfig, Sim};
use super::*;
use crate::disk::replace;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(Sim::new(seed, NetConfig::default()).rng())
}

fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("no sync takes time")
}

/// Writes a file and makes its contents durable, but not its name.
fn write(disk: &dyn Disk, file: &str, bytes: &[u8]) {
    let mut out = disk.open(file).unwrap();
    out.write_at(0, bytes).unwrap();
    done(out.sync()).unwrap();
}

#[test]
fn a_name_survives_a_crash_for_sure_only_once_its_folder_is_synced() {
    let survives = |seed, synced: bool| {
        let disk = disk(seed);
        let life = disk.disk();
        write(&*life, "a/x", b"x");
        if synced {
            done(life.sync_folder("b")).unwrap();
            done(life.sync_folder("a")).unwrap();
        }
        disk.crash();
        disk.files().contains_key("a/x")
    };
    assert!((0..32).all(|seed| survives(seed, true)));
    assert!((0..32).any(|seed| survives(seed, false)) && !(0..32).all(|seed| survives(seed, false)));
}

#[test]
fn a_removal_that_was_not_synced_may_be_undone_with_the_bytes() {
    let mut undone = 0;
    for seed in 0..32 {
        let disk = disk(seed);
        let life = disk.disk();
        write(&*life, "x", b"kept");
        done(life.sync_folder("")).unwrap();
        life.remove("x").unwrap();
        assert!(disk.files().is_empty());
        disk.crash();
        undone += u32::from(disk.files().get("x").is_some_and(|bytes| bytes == b"kept"));
    }
    assert!(undone > 0 && undone < 32, "{undone}");
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_after_a_crash() {
    let mut new = 0;
    for seed in 0..64 {
        let disk = disk(seed);
        done(replace(&*disk.disk(), "x", b"old")).unwrap();
        let life = disk.disk();
        write(&*life, "x.tmp", b"new and longer");
        life.rename("x.tmp", "x").unwrap();
        disk.crash();
        match &disk.files()["x"][..] {
            b"old" => {}
            b"new and longer" => new += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(new > 0 && new < 64, "{new}");
}

#[test]
fn an_earlier_life_does_nothing_more() {
    let disk = disk(1);
    let life = disk.disk();
    let lock = life.lock().unwrap();
    let mut file = life.open("x").unwrap();
    disk.kill();
    assert!(file.write_at(0, b"late").is_err());
    assert!(done(file.sync()).is_err());
    assert!(life.list("").is_err() && life.remove("x").is_err());
    let next = disk.disk();
    let _held = next.lock().unwrap();
    drop(lock);
    assert!(next.lock().is_err(), "the old lock's end frees nothing of the new life");
    assert_eq!(disk.files()["x"], b"");
}

#[test]
fn a_full_disk_takes_what_fits_and_what_does_not_grow() {
    let disk = disk(1);
    let life = disk.disk();
    let mut file = life.open("x").unwrap();
    disk.set_bytes_max(Some(4));
    file.write_at(0, b"1234").unwrap();
    let full = file.write_at(2, b"345").unwrap_err();
    assert_eq!((full.reason, full.operation), (DiskReason::Full, DiskOperation::Write));
    file.write_at(1, b"xyz").unwrap();
    assert_eq!(disk.files()["x"], b"1xyz");
}

#[test]
fn a_sync_takes_virtual_time_and_covers_what_was_written_before_it() {
    let sim = Sim::new(1, NetConfig::default());
    for seed in 0..32 {
        let disk = disk(seed);
        let clock = sim.clone();
        disk.set_sync_latency(Some(Arc::new(move || clock.sleep(Duration::from_millis(2)))));
        let life = disk.disk();
        let mut file = life.open("x").unwrap();
        file.write_at(0, b"before").unwrap();
        let (start, sync) = (sim.elapsed(), file.sync());
        file.write_at(6, b" after").unwrap();
        sim.run_until(Duration::from_secs(1), sync).unwrap().unwrap();
        sim.run_until(Duration::from_secs(1), life.sync_folder("")).unwrap().unwrap();
        assert_eq!(sim.elapsed() - start, Duration::from_millis(4));
        disk.crash();
        assert!(disk.files()["x"].starts_with(b"before"));
    }
}

#[test]
fn one_seed_decides_what_a_crash_leaves() {
    let left = |seed| {
        let disk = disk(seed);
        let life = disk.disk();
        for name in ["a", "b", "c", "d"] {
            life.open(name).unwrap().write_at(0, &[7; 3_000]).unwrap();
        }
        disk.crash();
        disk.files()
    };
    assert_eq!(left(5), left(5));
    assert!((0..8).any(|seed| left(seed) != left(5)));
}
