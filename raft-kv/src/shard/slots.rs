//! Slots in bytes: in snapshots of a shard, and on their way from shard to shard.

use serde::{Deserialize, Serialize};

use super::entries::{Entry, Slot};
use crate::key;
use crate::value_type::ValuePerKey;

/// Opens a slot; its entries follow. A slot without entries says that its hash holds nothing.
#[derive(Serialize, Deserialize)]
struct SlotHead {
    hash: u64,
    entries: u32,
}

/// Opens an entry; the bytes of its value follow.
#[derive(Serialize, Deserialize)]
struct EntryHead<'a> {
    #[serde(borrow)]
    key: &'a [u8],
    size: u64,
    value_bytes: u64,
}

/// A hash and what it holds.
pub(super) type Hashed<T> = (u64, Option<Slot<T>>);

/// Turns slots into bytes.
pub(super) struct SlotWriter<'v, V> {
    value_type: &'v V,
    /// A value in bytes, before its length is known.
    scratch: Vec<u8>,
}

impl<'v, V: ValuePerKey> SlotWriter<'v, V> {
    pub(super) fn new(value_type: &'v V) -> Self {
        Self { value_type, scratch: Vec::new() }
    }

    /// Appends what a hash holds to `out`.
    pub(super) fn write(&mut self, hash: u64, slot: Option<&Slot<V::Value>>, out: &mut Vec<u8>) {
        let entries = slot.map_or(&[][..], Slot::entries);
        self.open(hash, entries.len(), out);
        for Entry { key, value, size } in entries {
            let value = value.as_ref().expect("between commands every entry has a value");
            self.entry(key, value, *size, out);
        }
    }

    /// Appends the beginning of a slot; so many entries follow.
    pub(super) fn open(&mut self, hash: u64, entries: usize, out: &mut Vec<u8>) {
        append(out, &SlotHead { hash, entries: u32::try_from(entries).expect("fewer keys than 2^32") });
    }

    /// Appends an entry.
    pub(super) fn entry(&mut self, key: &[u8], value: &V::Value, size: u64, out: &mut Vec<u8>) {
        self.scratch.clear();
        self.value_type.encode(key, value, &mut self.scratch);
        append(out, &EntryHead { key, size, value_bytes: self.scratch.len() as u64 });
        out.extend_from_slice(&self.scratch);
    }
}

/// Reads what a [`SlotWriter`] wrote, and gives what follows it.
///
/// # Errors
///
/// What is wrong with the bytes.
pub(super) fn read_slot<'a, V: ValuePerKey>(
    value_type: &V,
    bytes: &'a [u8],
) -> Result<(Hashed<V::Value>, &'a [u8]), String> {
    let (SlotHead { hash, entries: count }, mut rest) = take::<SlotHead>("slot", bytes)?;
    let mut entries: Vec<Entry<V::Value>> = Vec::new();
    for _ in 0..count {
        let (entry, left) = read_entry(value_type, hash, rest)?;
        if entries.last().is_some_and(|last| last.key >= entry.key) {
            return Err(format!("the key \"{}\" is out of order", entry.key.escape_ascii()));
        }
        entries.push(entry);
        rest = left;
    }
    Ok(((hash, Slot::of(entries)), rest))
}

/// Reads slots to the end of the bytes.
pub(super) fn read_slots<V: ValuePerKey>(
    value_type: &V,
    mut bytes: &[u8],
) -> Result<Vec<Hashed<V::Value>>, String> {
    let mut slots = Vec::new();
    while !bytes.is_empty() {
        let (slot, rest) = read_slot(value_type, bytes)?;
        slots.push(slot);
        bytes = rest;
    }
    Ok(slots)
}

fn read_entry<'a, V: ValuePerKey>(
    value_type: &V,
    hash: u64,
    bytes: &'a [u8],
) -> Result<(Entry<V::Value>, &'a [u8]), String> {
    let (EntryHead { key, size, value_bytes }, rest) = take::<EntryHead<'_>>("entry", bytes)?;
    key::check(key).map_err(|error| error.to_string())?;
    if key::hash(key) != hash {
        return Err(format!("the key \"{}\" does not have the hash {hash:016x}", key.escape_ascii()));
    }
    let (value, rest) = usize::try_from(value_bytes)
        .ok()
        .and_then(|bytes| rest.split_at_checked(bytes))
        .ok_or_else(|| format!("a value of {value_bytes} bytes is cut off"))?;
    let value = value_type
        .decode(key, value)
        .map_err(|reason| format!("the value of \"{}\": {reason}", key.escape_ascii()))?;
    Ok((Entry { key: key.into(), value: Some(value), size }, rest))
}

/// Appends the postcard bytes of a value.
pub(super) fn append(out: &mut Vec<u8>, value: &impl Serialize) {
    *out = postcard::to_extend(value, std::mem::take(out)).expect("the head serialises");
}

/// Reads a value from the beginning of the bytes.
pub(super) fn take<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<(T, &'a [u8]), String> {
    postcard::take_from_bytes(bytes).map_err(|error| format!("the {what} does not decode: {error}"))
}
