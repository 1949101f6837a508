//! The decoders that read bytes of a peer or of a disk, as functions that a fuzzer calls. Behind the feature `fuzzing`,
//! for nobody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::{CommandContext, Data};
use crate::error::{CommandError, GroupError, QueryError};
use crate::group::Machine;
use crate::id::{GroupId, MemberId};
use crate::message::{BatchWriter, GroupMessage, MemberChange, read_batch};
use crate::neighbours::LoopMessage;
use crate::raft::convert;
use crate::registry::Registry;
use crate::service::GroupRequest;
use crate::session::{Records, Sessions};
use crate::store::fuzzing as store;

/// A batch of members' messages: what is understood is what would be said, and raft can be told of it.
pub fn batch(bytes: &[u8]) {
    let Ok(messages) = read_batch(bytes) else { return };
    let mut writer = BatchWriter::default();
    messages.iter().for_each(|message| writer.push(message));
    let batches = writer.take();
    let again = batches.iter().flat_map(|batch| read_batch(batch).expect("it was just written"));
    assert_eq!(again.collect::<Vec<GroupMessage>>(), messages);
    for message in messages {
        if convert::check(&message).is_ok() {
            // Some say nothing to raft.
            let _ = convert::from_wire(message);
        }
    }
}

/// What a client on another node asks.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = postcard::from_bytes::<GroupRequest>(bytes) {
        let again = postcard::from_bytes(&crate::data::encode(&request));
        assert_eq!(again, Ok(request));
    }
}

/// What it is answered.
pub fn reply(bytes: &[u8]) {
    let _ = postcard::from_bytes::<Result<bytes::Bytes, CommandError>>(bytes);
    let _ = postcard::from_bytes::<Result<bytes::Bytes, QueryError>>(bytes);
    let _ = postcard::from_bytes::<Result<MemberId, GroupError>>(bytes);
}

/// What a loop says to a loop of another node.
pub fn beat(bytes: &[u8]) {
    if let Ok(message) = postcard::from_bytes::<LoopMessage>(bytes) {
        let again = postcard::from_bytes(&crate::data::encode(&message));
        assert_eq!(again, Ok(message));
    }
}

/// A page of records, which moves with keys from group to group: taken in twice it is what it was, what is given out again
/// is what came in, and a refused one changes nothing.
pub fn page(bytes: &[u8]) {
    let (mut sessions, mut stamp_ms) = (Sessions::default(), 0);
    if Records::new(&mut sessions, &mut stamp_ms).import(bytes).is_err() {
        assert_eq!((sessions, stamp_ms), (Sessions::default(), 0));
        return;
    }
    let mut records = Records::new(&mut sessions, &mut stamp_ms);
    let export = |records: &Records<'_>| records.export(0..=u64::MAX, None, usize::MAX);
    let first = export(&records);
    records.import(bytes).expect("it was taken in before");
    assert_eq!(export(&records), first);
    let (mut others, mut other_ms) = (Sessions::default(), 0);
    let mut other = Records::new(&mut others, &mut other_ms);
    other.import(&first.bytes).expect("it was just given out");
    assert_eq!(export(&other), first);
    sessions.expire(stamp_ms.saturating_add(1));
    sessions.expire(u64::MAX);
}

/// What an entry of a log holds.
pub fn entry(bytes: &[u8]) {
    let _ = postcard::from_bytes::<crate::entry::EntryBody>(bytes);
    let _ = postcard::from_bytes::<MemberChange>(bytes);
}

/// A value that a fuzzer finds its way into.
#[derive(Default, Serialize, Deserialize)]
struct Words(BTreeMap<String, u64>);

impl Data for Words {
    const NAME: &'static str = "words";
    type Command = String;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, word: String) -> u64 {
        let count = self.0.entry(word).or_default();
        *count += 1;
        *count
    }

    fn query(&self, (): ()) -> u64 {
        self.0.len() as u64
    }
}

/// The state of a group, as snapshots have it: what comes back is written down as what comes back again.
pub fn state(bytes: &[u8]) {
    let registry = Registry::new().with::<Words>();
    let restore = |bytes: &[u8]| Machine::restore(GroupId(1), &registry, 1, bytes);
    let Ok(machine) = restore(bytes) else { return };
    let written = machine.snapshot(0).expect("it encodes");
    let again = restore(&written).and_then(|machine| machine.snapshot(0)).expect("it was just written");
    assert_eq!(again, written);
}

/// The file that says whose a directory is.
pub fn identity(bytes: &[u8]) {
    store::identity(bytes);
}

/// The mark of a log.
pub fn mark(bytes: &[u8]) {
    store::mark(bytes);
}

/// What follows in a segment of a log after a batch that is whole.
pub fn segment(bytes: &[u8]) {
    store::segment(bytes);
}

/// The records of a batch of a log.
pub fn records(bytes: &[u8]) {
    store::records(bytes);
}

/// A snapshot file.
pub fn snapshot(bytes: &[u8]) {
    store::snapshot(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 12] = [
        ("batch", batch),
        ("beat", beat),
        ("page", page),
        ("request", request),
        ("reply", reply),
        ("entry", entry),
        ("state", state),
        ("identity", identity),
        ("mark", mark),
        ("segment", segment),
        ("records", records),
        ("snapshot", snapshot),
    ];

    /// The seeds of a target.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    #[test]
    fn every_target_survives_its_seeds() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seeds");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    /// A fuzzer runs programs, and each must be told of in the manifest.
    #[test]
    fn every_target_is_a_program() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let files = std::fs::read_dir(folder.join("fuzz_targets")).unwrap();
        assert_eq!(files.count(), TARGETS.len());
        for (name, _) in TARGETS {
            let path = format!("fuzz_targets/{name}.rs");
            let program = std::fs::read_to_string(folder.join(&path)).unwrap();
            assert!(program.contains(&format!("rafted_value::fuzzing::{name}(bytes)")), "{path}");
            assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{path}\"")), "{path}");
        }
    }

    /// Seeds that mean nothing would lead a fuzzer nowhere.
    #[test]
    fn the_seeds_decode() {
        assert!(seeds("batch").iter().all(|seed| read_batch(seed).is_ok_and(|batch| !batch.is_empty())));
        assert!(seeds("request").iter().all(|seed| postcard::from_bytes::<GroupRequest>(seed).is_ok()));
        assert!(seeds("beat").iter().all(|seed| postcard::from_bytes::<LoopMessage>(seed).is_ok()));
        let kept = |seed: &Vec<u8>| {
            let (mut sessions, mut stamp_ms) = (Sessions::default(), 0);
            let imported = Records::new(&mut sessions, &mut stamp_ms).import(seed);
            imported.map(|()| sessions.replies())
        };
        assert_eq!(seeds("page").iter().map(kept).collect::<Vec<_>>(), [Ok(0), Ok(3)]);
        let records = |seed: &Vec<u8>| postcard::from_bytes::<Vec<crate::store::Record>>(seed);
        assert!(seeds("records").iter().all(|seed| records(seed).is_ok_and(|records| !records.is_empty())));
        let registry = Registry::new().with::<Words>();
        let restored = |seed: &Vec<u8>| Machine::restore(GroupId(1), &registry, 1, seed).is_ok();
        assert!(seeds("state").iter().any(restored));
        assert!(seeds("entry").iter().all(|seed| {
            postcard::from_bytes::<crate::entry::EntryBody>(seed).is_ok()
                || postcard::from_bytes::<MemberChange>(seed).is_ok()
        }));
    }

    /// The same mutations in every run: each seed cut off at every length, and with every bit of its beginning turned.
    #[test]
    fn every_target_survives_its_seeds_cut_off_anywhere_and_with_any_bit_turned() {
        const BYTES_MAX: usize = 200;
        for (name, target) in TARGETS {
            for seed in seeds(name) {
                let mut bytes = seed[..seed.len().min(2 * BYTES_MAX)].to_vec();
                (0..=bytes.len()).for_each(|kept| target(&bytes[..kept]));
                for bit in 0..8 * bytes.len().min(BYTES_MAX) {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    target(&bytes);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_target_survives_mutations_of_its_seeds(
            seed: prop::sample::Index,
            places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            kept: prop::sample::Index,
        ) {
            for (name, target) in TARGETS {
                let seeds = seeds(name);
                let mut bytes = seeds[seed.index(seeds.len())].clone();
                for (place, value) in &places {
                    let place = place.index(bytes.len());
                    bytes[place] = *value;
                }
                target(&bytes);
                bytes.truncate(kept.index(bytes.len() + 1));
                target(&bytes);
            }
        }
    }
}
