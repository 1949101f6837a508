//! The scenario of the engine alone: hosts, groups and clients under faults, then mended and compared.

mod client;
mod cluster;
mod directory;
mod faults;
mod invariants;
mod lists;
mod operator;
mod orders;
mod plan;
mod quorum;
mod run;
mod storage;
#[cfg(test)]
mod tests;
mod verdict;
mod witness;

#[cfg(test)]
pub(super) use self::invariants::status;
pub(super) use self::plan::KIND_NAMES;
use self::run::Run;
use super::limits::Limits;
use super::notes::Notes;

/// Plays one seed.
///
/// # Errors
///
/// What did not hold.
pub(super) fn play(seed: u64, limits: &Limits, notes: &mut Notes) -> Result<(), String> {
    let mut run = Run::start(seed, limits, notes)?;
    let result = run.play();
    run.conclude();
    result
}
