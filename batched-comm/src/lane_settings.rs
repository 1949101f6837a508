//! How a lane is written: what may be changed while it runs.

use std::time::Duration;

use serde::Serialize;

use crate::lane::Lane;

/// The longest `wait_max`.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The largest `batch_bytes_max`.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// How batches are compressed.
///
/// Only where it pays: small batches and those that do not shrink by a tenth go as they are, and after one that did
/// not, some of the next ones are not even tried. A peer that does not know an algorithm gets nothing compressed by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: the cheapest.
    Lz4,
    /// gzip at its fastest level.
    Gzip,
    /// Zstandard at level 1: smaller than gzip, and cheaper.
    Zstd,
}

/// How the batches of one lane are made and sent, to all peers or to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct LaneSettings {
    /// How long a message may wait for others to share its batch with, at most 60 s; a full batch goes at once.
    /// Default: none, whatever has gathered while the last batch was written goes as one.
    pub wait_max: Option<Duration>,
    /// Messages in one batch. Default: 65,536.
    pub batch_messages_max: usize,
    /// Bytes in one batch, headers included, at most 64 MiB; a larger message goes alone. Default: 256 KiB.
    pub batch_bytes_max: usize,
    /// Default: none.
    pub compression: Compression,
    /// Batches below this size are not compressed. Default: 512.
    pub compression_bytes_min: usize,
    /// Lanes of a higher priority are sent first when the connection is the bottleneck. Default: 2 for control, 1 for
    /// normal, 0 for bulk.
    pub priority: i32,
}

/// A lane's setting is out of its range, or the peer is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// A setting is out of its range.
    #[error("setting {setting}: {problem}")]
    OutOfRange {
        /// The field.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody has named that node, and it is not connected.
    #[error("node {0} is not known")]
    UnknownNode(crate::id::NodeId),
}

impl LaneSettings {
    /// The defaults of a lane.
    pub fn of(lane: Lane) -> LaneSettings {
        LaneSettings {
            wait_max: None,
            batch_messages_max: 65_536,
            batch_bytes_max: 256 << 10,
            compression: Compression::None,
            compression_bytes_min: 512,
            priority: 2 - lane.index() as i32,
        }
    }

    /// Settings that mean nothing are told before they are used.
    pub(crate) fn check(&self) -> Result<(), SettingError> {
        let require = |holds: bool, setting: &'static str, problem: String| {
            if holds { Ok(()) } else { Err(SettingError::OutOfRange { setting, problem }) }
        };
        let wait = self.wait_max.unwrap_or_default();
        require(wait <= WAIT_MAX, "wait_max", format!("{wait:?} is over {WAIT_MAX:?}"))?;
        require(self.batch_messages_max > 0, "batch_messages_max", "0 would send nothing".to_owned())?;
        require(
            (1..=BATCH_BYTES_MAX).contains(&self.batch_bytes_max),
            "batch_bytes_max",
            format!("{} is outside 1 to {BATCH_BYTES_MAX}", self.batch_bytes_max),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let good = LaneSettings::of(Lane::Normal);
        assert_eq!(good.check(), Ok(()));
        let named = |settings: LaneSettings| match settings.check() {
            Err(SettingError::OutOfRange { setting, .. }) => setting,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(LaneSettings { wait_max: Some(Duration::from_secs(61)), ..good }), "wait_max");
        assert_eq!(named(LaneSettings { batch_messages_max: 0, ..good }), "batch_messages_max");
        assert_eq!(named(LaneSettings { batch_bytes_max: 0, ..good }), "batch_bytes_max");
    }
}
