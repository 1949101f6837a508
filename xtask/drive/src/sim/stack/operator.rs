//! An operator who has shards split and merged, wherever and whenever.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::DistAgent;
use rafted_value::env::sleep;
use rafted_value::sim::{SimEnv, SimRng};

use super::load::Surroundings;

/// Asks for moves until it is told to stop.
pub(super) async fn work(
    env: Arc<SimEnv>,
    client: DistAgent,
    around: Arc<Surroundings>,
    every: Duration,
    mut rng: SimRng,
) {
    around.running.fetch_add(1, Ordering::Relaxed);
    while !around.stop.load(Ordering::Relaxed) && !around.calm.load(Ordering::Relaxed) {
        ask(&client, &mut rng).await;
        sleep(env.as_ref(), rng.duration(Duration::ZERO, every)).await;
    }
    around.running.fetch_sub(1, Ordering::Relaxed);
}

/// Asks for one. That it is refused, or that nobody answers, is no matter of the operator's.
async fn ask(client: &DistAgent, rng: &mut SimRng) {
    let Ok(keyspaces) = client.kv().list_keyspaces().await else { return };
    let Some(keyspace) = keyspaces.first() else { return };
    let index = rng.below(keyspace.shards.len() as u64) as usize;
    let shard = keyspace.shards[index];
    if rng.chance(0.5) {
        let (first, last) = (shard.range.first(), shard.range.last());
        let anywhere = first.saturating_add(rng.below((last - first).max(1)) + 1);
        let at = rng.chance(0.5).then_some(anywhere);
        drop(client.kv().split_shard(&keyspace.name, shard.number, at).await);
        return;
    }
    let neighbours = [index.checked_sub(1), Some(index + 1)];
    let neighbours = neighbours.into_iter().flatten().filter_map(|index| keyspace.shards.get(index));
    let neighbours: Vec<u32> = neighbours.map(|place| place.number).collect();
    if let Some(to) = rng.pick(&neighbours) {
        drop(client.kv().merge_shards(&keyspace.name, shard.number, *to).await);
    }
}
