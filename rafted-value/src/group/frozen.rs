//! A group's state in bytes: put together in one buffer, in the loop or beside it.
//!
//! Encoding a value of a GiB takes seconds, in which its loop would neither beat nor answer. A value that can be copied in
//! a moment is encoded from such a copy on another thread, while commands change the original.

use bytes::Bytes;

use super::machine::{MachineError, Panicked, catch};

/// The longest length of a value as postcard writes it.
const LENGTH_BYTES_MAX: usize = 10;

/// A machine as it was after some entry, without its value in bytes.
pub(crate) struct FrozenMachine {
    /// Everything before the value.
    pub(super) head: Bytes,
    pub(super) value: crate::data::Frozen,
    /// How many bytes the value is expected to take.
    pub(super) bytes: usize,
}

impl FrozenMachine {
    /// The whole machine in bytes, the same as if it had been encoded at once.
    pub(crate) fn encode(self) -> Result<Bytes, MachineError> {
        join(&self.head, self.bytes, |out| catch(|| (self.value)(out)))
    }
}

/// What `write` appends, as a sequence of bytes behind `head`. The value is written once and never copied: a place is
/// left before it for the head and the length, which is known only afterwards.
pub(super) fn join(
    head: &[u8],
    expected_bytes: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Panicked>,
) -> Result<Bytes, MachineError> {
    let room = head.len() + LENGTH_BYTES_MAX;
    let mut buffer = Vec::with_capacity(room + expected_bytes);
    buffer.resize(room, 0);
    write(&mut buffer)?;
    if buffer.len() < room {
        return Err(MachineError::Unsnapshotable("it cuts off what it is to be appended to".into()));
    }
    let length = crate::data::encode(&(buffer.len() - room));
    let start = LENGTH_BYTES_MAX - length.len();
    buffer[start..start + head.len()].copy_from_slice(head);
    buffer[start + head.len()..room].copy_from_slice(&length);
    // It is kept for as long as the group is quiet, and the log that was counted in may have been mostly overwritten values.
    if buffer.capacity() - buffer.len() > buffer.len() / SLACK_DIVISOR {
        buffer.shrink_to_fit();
    }
    Ok(Bytes::from(buffer).slice(start..))
}

/// A snapshot may keep a quarter of its length unused.
const SLACK_DIVISOR: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a snapshot held before it was put together in this way, and must hold for ever.
    #[test]
    fn a_joined_value_is_a_field_of_bytes() {
        for bytes in [0, 1, 127, 128, 70_000] {
            let value = Bytes::from(vec![7; bytes]);
            let whole = crate::data::encode(&(300_u64, "name", &value));
            let head = crate::data::encode(&(300_u64, "name"));
            let joined = join(&head, 10, |out| {
                out.extend_from_slice(&value);
                Ok(())
            });
            assert_eq!(joined.unwrap(), whole, "{bytes} bytes");
        }
    }

    #[test]
    fn a_value_that_panics_or_takes_away_is_an_error() {
        join(b"head", 0, |_| Err(Panicked("on purpose".into()))).unwrap_err();
        join(b"head", 0, |out| {
            out.clear();
            Ok(())
        })
        .unwrap_err();
    }
}
