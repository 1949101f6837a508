//! A move's performer dies, at every step of the move; another goes on.

use std::time::Duration;

use raft_kv::rafted_value::NodeId;
use raft_kv::rafted_value::env::sleep;
use raft_kv::{KeyspacePolicy, KvConfig, Move, MovePhase, ShardStatus};

use crate::cluster::{Cluster, NODES, SECOND, config, name, policy};
use crate::moves::{check, settled, writers};

const MS: Duration = Duration::from_millis(1);

/// How far a move has come when its performer dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It has just been claimed; the group of a split's new shard is yet to be made.
    Claimed,
    /// The range is copied.
    Copying,
    /// The range was given up, and nobody serves it.
    GivenUp,
    /// It has its new owner.
    Moved,
}

/// What a death has led to.
#[derive(Debug)]
struct Outcome {
    /// From the death to the next performer of the move; `None` where the move had ended.
    taken_over: Option<Duration>,
    /// The longest that a command has taken.
    longest: Duration,
    /// Whether a member that lives told, at the death, that nobody serves the range.
    in_the_pause: bool,
}

/// Whether the members on any node but `without` say so of a shard; it takes no time.
fn any_shard(cluster: &Cluster, without: usize, wanted: impl Fn(&ShardStatus) -> bool) -> bool {
    (0..NODES).filter(|node| *node != without).any(|node| {
        let shards = cluster.spawn_on(node, |kv| async move { kv.local_shards("texts").await });
        cluster.wait(shards).is_some_and(|shards| shards.iter().any(&wanted))
    })
}

/// The move, if there is one: who performs it, for the how manieth time it was claimed, and whether it has its end.
fn performance(cluster: &Cluster) -> Option<(Option<NodeId>, u64, bool)> {
    let moves = cluster.run(|kv| async move { kv.moves().await.expect("the list answers in time") });
    moves.first().map(|moving| (moving.performer, moving.epoch, moving.phase == MovePhase::Moved))
}

/// What becomes of a performer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Its process ends, and its system says so.
    Dies,
    /// It stands still for some seconds, and goes on then where it was.
    StandsStill,
}

/// Lets a split or a merge come to a stage, and `fate` meet its performer `later` than that.
fn lose_performer(seed: u64, merges: bool, stage: Stage, later: Duration, fate: Fate) -> Outcome {
    let mut cluster = Cluster::new(seed);
    let policy = KeyspacePolicy { shards: if merges { 2 } else { 1 }, ..policy() };
    cluster.run(
        move |kv| async move { kv.register_keyspace(&name("notes"), &policy).await.expect("a new name") },
    );
    let writing = writers(&cluster, 100);
    cluster.run(move |kv| async move {
        sleep(kv.fleet().env().as_ref(), 300 * MS).await;
        if merges {
            kv.merge_shards(&name("notes"), 0, 1).await.expect("they are neighbours");
        } else {
            kv.split_shard(&name("notes"), 0, None).await.expect("it can be split");
        }
    });
    let (performer, epoch) = loop {
        if let Some((Some(performer), epoch, _)) = performance(&cluster) {
            break (performer, epoch);
        }
    };
    let reached = |cluster: &Cluster| match stage {
        Stage::Claimed => true,
        Stage::Copying => any_shard(cluster, NODES, |shard| shard.moving),
        Stage::GivenUp => any_shard(cluster, NODES, |shard| shard.hands_over),
        Stage::Moved => performance(cluster).is_none_or(|(_, _, moved)| moved),
    };
    while !reached(&cluster) {
        cluster.sim.run_for(MS / 3);
    }
    cluster.sim.run_for(later);
    let node =
        cluster.nodes.iter().position(|(_, kv)| kv.fleet().node() == performer).expect("a node of ours");
    match fate {
        Fate::Dies => cluster.sim.kill(&cluster.nodes[node].0),
        Fate::StandsStill => cluster.sim.pause(&cluster.nodes[node].0),
    }
    let in_the_pause = any_shard(&cluster, node, |shard| shard.hands_over);
    let died = cluster.sim.elapsed();
    let taken_over = loop {
        match performance(&cluster) {
            None => break None,
            Some((_, newer, _)) if newer > epoch => break Some(cluster.sim.elapsed() - died),
            Some(_) => cluster.sim.run_for(MS),
        }
    };
    match fate {
        Fate::Dies => {
            cluster.sim.run_for(SECOND);
            cluster.restart(node);
        }
        Fate::StandsStill => {
            cluster.sim.run_for(2 * SECOND);
            cluster.sim.resume(&cluster.nodes[node].0);
        }
    }
    let shards = cluster.run(|kv| async move { settled(&kv).await });
    assert_eq!(shards, if merges { vec![1] } else { vec![0, 1] }, "seed {seed}");
    let histories = writing.into_iter().map(|task| cluster.wait(task).expect("the client lives")).collect();
    Outcome { taken_over, longest: check(&cluster, histories), in_the_pause }
}

/// Performers die at every stage, a little later from one seed to the next; what all of it came to.
fn check_takeovers(seed: u64, merges: bool) {
    for (place, stage) in
        [Stage::Claimed, Stage::Copying, Stage::GivenUp, Stage::Moved].into_iter().enumerate()
    {
        let outcomes: Vec<_> = (0..5)
            .map(|step| {
                let seed = seed + 5 * place as u64 + u64::from(step);
                lose_performer(seed, merges, stage, step * MS / 2, Fate::Dies)
            })
            .collect();
        let taken: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.taken_over).collect();
        assert!(taken.len() >= 4, "{stage:?}: the move has ended by itself in most: {outcomes:?}");
        // Where the dead one led the list of keyspaces, a promise and an election stand before that.
        assert!(taken.iter().all(|taken| *taken < 350 * MS), "{stage:?}: {outcomes:?}");
        let in_the_pause = outcomes.iter().filter(|outcome| outcome.in_the_pause).count();
        assert!(stage != Stage::GivenUp || in_the_pause >= 3, "{outcomes:?}");
        // The dead one led a shard as well, or the range was nobody's until the list had its next leader, or both.
        assert!(outcomes.iter().all(|outcome| outcome.longest < 400 * MS), "{stage:?}: {outcomes:?}");
    }
}

/// A range whose performer died while nobody served it once waited for the end of its lease, two seconds and more.
#[test]
fn a_split_whose_performer_dies_at_any_step_goes_on_at_once() {
    check_takeovers(200, false);
}

#[test]
fn a_merge_whose_performer_dies_at_any_step_goes_on_at_once() {
    check_takeovers(1000, true);
}

/// Nobody tells of a performer that stands still; its lease is short while nobody serves the range. When it goes on, it
/// performs a move that is another's or has ended.
#[test]
fn a_performer_that_stands_still_while_nobody_serves_the_range_is_replaced_soon() {
    let lose = |n: u32| {
        let (seed, merges) = (400 + u64::from(n), n % 2 == 1);
        lose_performer(seed, merges, Stage::GivenUp, n * MS / 4, Fate::StandsStill)
    };
    let outcomes: Vec<_> = (0..8).map(lose).collect();
    let mut taken: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.taken_over).collect();
    taken.sort();
    assert!(taken.len() >= 6, "{outcomes:?}");
    assert!(taken[0] < 700 * MS, "none within its short lease and a look: {outcomes:?}");
    // Where it led the list of keyspaces as well, an election timeout comes first.
    assert!(taken[taken.len() - 1] < 2 * SECOND, "{outcomes:?}");
}

/// A node that came back once took over one of the moves that it had performed, and each of the others waited for the end of
/// its lease, however many the node may perform at a time.
#[test]
fn a_cluster_that_comes_back_goes_on_at_once_with_all_moves_that_were_under_way() {
    for seed in 400..404 {
        // A lease that never ends here, and ranges that are long on their way.
        let long =
            KvConfig { move_lease: 600 * SECOND, moves_poll: 100 * MS, move_chunk_pause: SECOND, ..config() };
        let mut cluster = Cluster::on_disks_with(seed, KvConfig { moves_performed_max: 4, ..long });
        cluster.run(move |kv| async move {
            kv.register_keyspace(&name("notes"), &policy()).await.expect("a new name");
            for shard in 0..4 {
                kv.split_shard(&name("notes"), shard, None).await.expect("it can be split");
            }
        });
        let moves = |cluster: &Cluster| -> Vec<Move> {
            cluster.run(|kv| async move { kv.moves().await.expect("the list answers in time") })
        };
        let all_performed = |moves: &[Move]| moves.len() == 4 && moves.iter().all(|moving| moving.epoch > 0);
        while !all_performed(&moves(&cluster)) {
            cluster.sim.run_for(10 * MS);
        }
        let before = moves(&cluster);
        cluster.lose_power();
        let back = cluster.sim.elapsed();
        let resumed = |now: &[Move]| {
            let next = |was: &Move| now.iter().find(|moving| moving.id == was.id);
            before.iter().all(|was| next(was).is_none_or(|moving| moving.epoch > was.epoch))
        };
        while !resumed(&moves(&cluster)) {
            let waited = cluster.sim.elapsed() - back;
            assert!(waited < 2 * SECOND, "seed {seed}: {before:?} came to {:?}", moves(&cluster));
            cluster.sim.run_for(10 * MS);
        }
        let shards = cluster.run(|kv| async move { settled(&kv).await });
        assert_eq!(shards.len(), 8, "seed {seed}");
    }
}
