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

/// Appends what a hash holds to `out`.
pub(super) fn write_slot<V: ValuePerKey>(
    value_type: &V,
    hash: u64,
    slot: Option<&Slot<V::Value>>,
    out: &mut Vec<u8>,
) {
    let entries = slot.map_or(&[][..], Slot::entries);
    append(out, &SlotHead { hash, entries: u32::try_from(entries.len()).expect("fewer keys than 2^32") });
    let mut scratch = Vec::new();
    for Entry { key, value, size } in entries {
        let value = value.as_ref().expect("between commands every entry has a value");
        scratch.clear();
        value_type.encode(key, value, &mut scratch);
        append(out, &EntryHead { key, size: *size, value_bytes: scratch.len() as u64 });
        out.extend_from_slice(&scratch);
    }
}

/// Reads what [`write_slot`] wrote, and gives what follows it.
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
