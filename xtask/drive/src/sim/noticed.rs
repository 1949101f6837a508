//! What is broken on purpose must be noticed: a check that never fails proves nothing.

use std::ops::Range;

use super::limits::Limits;
use super::notes::Notes;
use super::panics;
use super::sabotage::Sabotage;

/// Plays one seed of a kind of world.
type Play = fn(u64, &Limits, &mut Notes) -> Result<(), String>;

/// Plays sabotaged seeds until one fails with one of these words.
pub(super) fn check_is_noticed(play: Play, sabotage: Sabotage, seeds: Range<u64>, words: &[&str]) {
    panics::install();
    let limits = Limits { plant: Some(sabotage), ..Limits::default() };
    let mut seen = Vec::new();
    for seed in seeds.clone() {
        let result = panics::catch(|| play(seed, &limits, &mut Notes::default()));
        if let Err(why) = result {
            if words.iter().any(|word| why.contains(word)) {
                return;
            }
            seen.push(why);
        }
    }
    panic!("{sabotage:?} was not noticed in seeds {seeds:?}; what was: {seen:?}");
}
