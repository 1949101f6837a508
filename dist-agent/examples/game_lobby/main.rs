//! Players meet in lobbies: a game begins when there are enough of them, or when they have waited for long enough, and ends
//! when nobody plays any more.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

mod lobby;

use std::time::Duration;

use dist_agent::raft_kv::rafted_value::env::sleep;
use dist_agent::{AgentQueryError, AgentTypes, QuotaLimit, SingleNode};
use lobby::{IDLE_TICKS, Lobby, LobbyHandle, PATIENCE_TICKS, Phase};

/// Short, so that something is to be seen.
const TICK: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let types = AgentTypes::new().with::<Lobby>();
    let cluster = SingleNode::new(types).config(|config| config.tick_interval = TICK).start().await?;
    cluster.put_quota("europe", QuotaLimit::Unlimited).await?;
    let lobby = cluster.agent::<Lobby>("europe", "dice")?;
    let env = cluster.fleet().env().clone();

    for player in ["ann", "ben"] {
        println!("{player} joins: {:?} wait", lobby.join(player.into()).await?);
    }
    println!("ann rolls too early: {:?}", lobby.roll("ann".into()).await?);
    sleep(env.as_ref(), (PATIENCE_TICKS + 2) * TICK).await;
    let (phase, players) = lobby.look().await?;
    println!("after {PATIENCE_TICKS} ticks: {phase:?} with {} players", players.len());
    assert_eq!(phase, Phase::Playing);
    for player in ["ann", "ben"] {
        println!("{player} rolls: {:?}", lobby.roll(player.into()).await?);
    }
    sleep(env.as_ref(), (IDLE_TICKS + 2) * TICK).await;
    match lobby.look().await {
        Err(AgentQueryError::AgentNotFound(id)) => println!("nobody has played: {id} is over"),
        other => println!("still there: {other:?}"),
    }
    cluster.shutdown().await;
    Ok(())
}
