//! How often shards were split and merged, and what else went on meanwhile.

use std::collections::BTreeMap;

use dist_agent::raft_kv::sim::ShardShown;
use rafted_value::GroupId;

use crate::sim::steps::{Moving, Scene};
use crate::sim::tally::Tally;

/// All moves of a seed.
#[derive(Debug, Default)]
pub(super) struct Moves {
    scene: Scene,
    /// By the group that sends.
    under_way: BTreeMap<GroupId, UnderWay>,
    tally: Tally,
}

/// A move, and what has gone on since it began.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    kind: Moving,
    given_up: bool,
    cut: bool,
    dead: bool,
    draining: bool,
}

/// What a shard takes part in.
pub(super) fn moving(shard: &ShardShown) -> Option<Moving> {
    match (shard.sends, shard.receives) {
        (Some(sent), _) if shard.range == Some(sent) => Some(Moving::Merge),
        (Some(_), _) => Some(Moving::Split),
        (None, Some(_)) if shard.range.is_some() => Some(Moving::Merge),
        (None, Some(_)) => Some(Moving::Split),
        (None, None) => None,
    }
}

impl Moves {
    /// What goes on around the shards from now on.
    pub(super) fn set_scene(&mut self, scene: Scene) {
        self.scene = scene;
        self.under_way.values_mut().for_each(|under_way| under_way.meets(scene));
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// A shard has come from one state to another.
    pub(super) fn sees(&mut self, group: GroupId, before: Option<&ShardShown>, now: &ShardShown) {
        if now.sends.is_some() {
            let Some(kind) = moving(now) else { return };
            let begun = UnderWay { kind, given_up: false, cut: false, dead: false, draining: false };
            let under_way = self.under_way.entry(group).or_insert(begun);
            under_way.meets(self.scene);
            under_way.given_up |= now.serves != now.range;
            return;
        }
        let Some(ended) = self.under_way.remove(&group) else { return };
        let done = before.is_some_and(|before| before.range != now.range);
        ended.read_out(done, &mut self.tally);
    }

    /// Adds what was counted.
    pub(super) fn read_out(&self, tally: &mut Tally) {
        let none = [
            "shards split",
            "shards merged",
            "splits aborted",
            "merges aborted",
            "rare: a move undone while links were cut",
            "rare: a move undone while a node was dead",
            "rare: a move undone during a drain",
            "rare: a move undone after its range was given up",
        ];
        none.into_iter().for_each(|what| tally.add(what, 0));
        tally.merge(&self.tally);
    }
}

impl UnderWay {
    fn meets(&mut self, scene: Scene) {
        self.cut |= scene.cut;
        self.dead |= scene.dead;
        self.draining |= scene.draining;
    }

    fn read_out(self, done: bool, tally: &mut Tally) {
        let splits = self.kind == Moving::Split;
        let of = |split: &'static str, merge: &'static str| if splits { split } else { merge };
        let met = if done {
            tally.one(of("shards split", "shards merged"));
            [
                (self.cut, of("rare: a split while links were cut", "rare: a merge while links were cut")),
                (self.dead, of("rare: a split while a node was dead", "rare: a merge while a node was dead")),
                (self.draining, of("rare: a split during a drain", "rare: a merge during a drain")),
                (false, ""),
            ]
        } else {
            tally.one(of("splits aborted", "merges aborted"));
            [
                (self.cut, "rare: a move undone while links were cut"),
                (self.dead, "rare: a move undone while a node was dead"),
                (self.draining, "rare: a move undone during a drain"),
                (self.given_up, "rare: a move undone after its range was given up"),
            ]
        };
        met.into_iter().filter(|(met, _)| *met).for_each(|(_, what)| tally.one(what));
    }
}

#[cfg(test)]
mod tests {
    use dist_agent::raft_kv::KeyRange;

    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn shard(range: Option<KeyRange>, sends: Option<KeyRange>) -> ShardShown {
        ShardShown { range, serves: range, sends, receives: None, keys: Vec::new() }
    }

    fn counts(moves: &Moves) -> Vec<(&'static str, u64)> {
        moves.tally.iter().collect()
    }

    #[test]
    fn a_split_and_a_merge_are_counted_with_what_they_met() {
        let (whole, half) = (Some(KeyRange::ALL), KeyRange::part(1, 2));
        let (idle, splits) = (shard(whole, None), shard(whole, Some(half)));
        let mut moves = Moves::default();
        moves.sees(GROUP, Some(&idle), &splits);
        moves.set_scene(Scene { cut: true, ..Scene::default() });
        moves.set_scene(Scene::default());
        let left = shard(Some(KeyRange::part(0, 2)), None);
        moves.sees(GROUP, Some(&splits), &left);
        assert_eq!(counts(&moves), [("rare: a split while links were cut", 1), ("shards split", 1)]);
        let merges = shard(left.range, left.range);
        let given_up = ShardShown { serves: None, ..merges.clone() };
        for undone in [&merges, &given_up] {
            moves.sees(GROUP, Some(&left), &merges);
            moves.sees(GROUP, Some(&merges), undone);
            moves.sees(GROUP, Some(undone), &left);
        }
        let undone = [("merges aborted", 2), ("rare: a move undone after its range was given up", 1)];
        assert_eq!(counts(&moves)[..2], undone);
    }
}
