//! Lanes: the independent, ordered streams between two nodes.

use std::fmt;

use serde::Serialize;

/// One of the ordered streams between two nodes.
///
/// Messages of one lane keep their order while the connection lives; lanes do not wait for each other, and
/// when the connection is the bottleneck a higher [priority](crate::LaneSettings::priority) goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[repr(u8)]
pub enum Lane {
    /// Small and urgent: heartbeats, votes, replication.
    Control = 0,
    /// Ordinary requests and their replies.
    Normal = 1,
    /// Large and patient: snapshots.
    Bulk = 2,
}

impl Lane {
    /// Every lane, in order of priority.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Normal, Lane::Bulk];

    /// The lane's place in an array of all lanes.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The lane a stream announces with its first byte.
    pub(crate) fn from_tag(tag: u8) -> Option<Lane> {
        Lane::ALL.get(usize::from(tag)).copied()
    }

    /// The byte that opens the lane's stream.
    pub(crate) fn tag(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Control => "control",
            Lane::Normal => "normal",
            Lane::Bulk => "bulk",
        })
    }
}
