//! A value of any size, for what is measured of large states and long logs.

use bytes::Bytes;
use rafted_value::{CommandContext, Data};
use rand_core::RngCore;
use serde::{Deserialize, Serialize};

/// Pieces that copies share.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Blob {
    pieces: Vec<Bytes>,
    commands: u64,
}

/// What changes a blob. The number that all clients of the bench send is [`Count`](Change::Count).
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Change {
    Nothing,
    Count,
    /// Grows by a piece of so many bytes, which do not compress.
    Grow(u32),
    /// Makes the log longer and nothing else.
    Carry(Bytes),
}

impl Data for Blob {
    const NAME: &'static str = "blob";
    type Command = Change;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, context: &CommandContext, change: Change) -> u64 {
        if let Change::Grow(bytes) = change {
            let mut piece = vec![0; bytes as usize];
            context.rng().fill_bytes(&mut piece);
            self.pieces.push(piece.into());
        }
        self.commands += 1;
        self.commands
    }

    fn query(&self, (): ()) -> u64 {
        self.commands
    }

    fn freeze(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// The same without copies that share: its loop stands still while it is encoded.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Held(Blob);

impl Data for Held {
    const NAME: &'static str = "held";
    type Command = Change;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, context: &CommandContext, change: Change) -> u64 {
        self.0.command(context, change)
    }

    fn query(&self, (): ()) -> u64 {
        self.0.query(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_number_is_a_command_that_counts() {
        let change: Change = postcard::from_bytes(&rafted_value::encode(&1_u64)).unwrap();
        assert!(matches!(change, Change::Count));
    }
}
