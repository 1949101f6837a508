//! The decoders that read bytes of a peer or of a disk, as functions that a fuzzer calls. Behind the feature `fuzzing`,
//! for nobody else.

mod agents;
mod ledgers;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent_id::{AgentId, AgentIdRef, QuotaName};
use crate::agent_values::KeptChange;
use crate::list::AgentPosition;
use crate::quota::{LedgerAnswer, LedgerReply, QuotaUsage};
use crate::watch::WatchPosition;
use crate::wire::{AgentAnswer, AgentReply, join, split};

pub use self::agents::{agent, command, query};
pub use self::ledgers::{ledger, stored};

/// What is said to a caller, what a caller keeps, and keys of the store.
pub fn told(bytes: &[u8]) {
    head::<AgentReply>(bytes);
    head::<AgentAnswer>(bytes);
    whole::<LedgerReply>(bytes);
    whole::<LedgerAnswer>(bytes);
    whole::<Vec<KeptChange>>(bytes);
    whole::<WatchPosition>(bytes);
    whole::<AgentPosition>(bytes);
    whole::<QuotaUsage>(bytes);
    if let Some(id) = whole::<AgentId>(bytes) {
        is_in_its_key(&id);
    }
    let Ok(id) = AgentIdRef::parse(bytes) else { return };
    let prefix = AgentIdRef::quota_prefix(bytes).expect("it has a quota");
    assert_eq!(prefix.strip_suffix(b"\0"), Some(id.quota.as_bytes()));
    assert!(QuotaName::new(id.quota).is_ok(), "a quota of a key that is counted");
}

fn is_in_its_key(id: &AgentId) {
    let key = id.store_key();
    let parsed = AgentIdRef::parse(key.as_bytes()).expect("it is an agent's");
    let parts = (id.quota.as_str(), id.agent_type.as_str(), id.key.as_str());
    assert_eq!((parsed.quota, parsed.agent_type, parsed.key), parts);
}

/// A head that is understood is the one that would be said, and what follows it is left.
fn head<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok((head, rest)) = split::<T>(bytes) else { return };
    assert_eq!(split::<T>(&join(&head, rest)), Ok((head, rest)));
}

/// What is understood is what would be said.
fn whole<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let said = postcard::from_bytes::<T>(bytes).ok()?;
    let again = postcard::to_stdvec(&said).expect("it serialises");
    assert_eq!(postcard::from_bytes(&again).as_ref(), Ok(&said));
    Some(said)
}

#[cfg(test)]
mod seeds;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 6] = [
        ("agent", agent),
        ("command", command),
        ("query", query),
        ("ledger", ledger),
        ("stored", stored),
        ("told", told),
    ];

    /// The seeds of a target.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let mut files: Vec<_> =
            std::fs::read_dir(seeds::folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
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

    /// The same mutations in every run: each seed cut off at every length, and with every bit of its beginning turned.
    #[test]
    fn every_target_survives_its_seeds_cut_off_anywhere_and_with_any_bit_turned() {
        const BYTES_MAX: usize = 120;
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
