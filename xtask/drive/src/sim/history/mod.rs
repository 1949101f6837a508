//! What clients asked and were told, and whether one order of their operations explains it all.
//!
//! Every key holds a list to which operations append numbers that are never used twice. The list at the end of a run
//! therefore names the order of all writes, and what a client was told (the length and hash of the list it saw) names
//! its place in that order. Linearizability (Herlihy and Wing, 1990) then needs no search: each operation's place is
//! known, and only real time remains to be checked.

mod check;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use self::check::check;
#[cfg(test)]
pub(crate) use self::record::Operation;
pub(crate) use self::record::{Key, Outcome, Record, Request, Version, append_hash};
