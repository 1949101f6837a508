//! What a group's log entries hold, beside Raft's own.

use serde::{Deserialize, Serialize};

use crate::config::GroupConfig;
use crate::request::Command;

/// The payload of a log entry; append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum EntryBody {
    /// Commands, to run in this order.
    Commands(Commands),
    /// New settings, in force from here on.
    Config(GroupConfig),
    /// Each member hashes its state here and tells the leader.
    Check,
    /// What a majority of the voters had at the check at `index`.
    Verdict { index: u64, hash: u64 },
}

/// What an entry holds, told by the number of its variant alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EntryKind {
    /// Of a new leader's first entry.
    Nothing,
    Commands,
    Config,
    Comparison,
}

impl EntryKind {
    /// What a payload holds; commands, where it is none of the others.
    pub(crate) fn of(data: &[u8]) -> Self {
        match data.first() {
            None => Self::Nothing,
            Some(1) => Self::Config,
            Some(2 | 3) => Self::Comparison,
            Some(_) => Self::Commands,
        }
    }
}

/// Commands that the leader took in together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Commands {
    /// The leader's wall clock, never before the previous entry's stamp when it runs.
    pub(crate) stamp_ms: u64,
    pub(crate) commands: Vec<Command>,
}

/// Differs for each command of a group and is the same on every member (the finalizer of SplitMix64; Steele, Lea and
/// Flood, 2014).
pub(crate) fn command_seed(group: u64, index: u64, position: u64) -> u64 {
    let mut z = group
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(index.wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_add(position.wrapping_add(1).wrapping_mul(0x8cb9_2ba7_2f3d_8dd7));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::SessionId;

    #[test]
    fn an_entry_has_these_golden_bytes() {
        let command = Command {
            session: SessionId::new(1, 2),
            sequence: 3,
            acknowledged: 2,
            retry_until_ms: 300,
            key_hash: 5,
            payload: Bytes::from_static(b"xy"),
        };
        let body = EntryBody::Commands(Commands { stamp_ms: 200, commands: vec![command] });
        let golden =
            [0, 200, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 172, 2, 5, 2, 120, 121];
        assert_eq!(postcard::to_stdvec(&body).unwrap(), golden);
        assert_eq!(postcard::from_bytes::<EntryBody>(&golden).unwrap(), body);
    }

    #[test]
    fn an_entry_of_settings_has_these_golden_bytes() {
        let body = EntryBody::Config(GroupConfig::default());
        let golden =
            [1, 50, 200, 1, 20, 216, 4, 176, 9, 160, 141, 6, 192, 207, 36, 128, 128, 64, 10, 128, 128, 64, 2];
        let bytes = postcard::to_stdvec(&body).unwrap();
        assert_eq!(bytes, golden);
        assert_eq!(postcard::from_bytes::<EntryBody>(&golden).unwrap(), body);
        assert_eq!(EntryKind::of(&bytes), EntryKind::Config);
    }

    #[test]
    fn the_entries_of_a_comparison_have_these_golden_bytes() {
        let check = postcard::to_stdvec(&EntryBody::Check).unwrap();
        let verdict = EntryBody::Verdict { index: 300, hash: 1 << 40 };
        let golden = [3, 172, 2, 128, 128, 128, 128, 128, 32];
        assert_eq!(check, [2]);
        assert_eq!(postcard::to_stdvec(&verdict).unwrap(), golden);
        assert_eq!(postcard::from_bytes::<EntryBody>(&golden).unwrap(), verdict);
        for data in [&check[..], &golden] {
            assert_eq!(EntryKind::of(data), EntryKind::Comparison);
        }
        assert_eq!(EntryKind::of(&[]), EntryKind::Nothing);
        assert_eq!(EntryKind::of(&[0]), EntryKind::Commands);
    }

    #[test]
    fn seeds_of_neighbours_differ() {
        let mut seeds: Vec<u64> =
            (0..10).flat_map(|index| (0..10).map(move |position| command_seed(1, index, position))).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 100);
    }
}
