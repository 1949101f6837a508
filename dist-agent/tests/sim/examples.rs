//! The agents of the examples, in the test kit: nodes die in the middle of their games and sessions.

use dist_agent::testing::Cluster;
use dist_agent::{AgentError, AgentNotApplied, AgentQueryError, AgentTypes};
use futures_util::future::join_all;

use lobby::{IDLE_TICKS, Lobby, LobbyError, LobbyHandle, PATIENCE_TICKS, Phase, SEATS};
use session::{Session, SessionHandle};

#[path = "../../examples/game_lobby/lobby.rs"]
mod lobby;
#[path = "../../examples/tenant_sessions/session.rs"]
mod session;

fn lobbies(seed: u64) -> Cluster {
    Cluster::new(seed, AgentTypes::new().with::<Lobby>())
}

#[test]
fn a_game_begins_when_the_seats_are_taken_and_ends_when_nobody_plays() {
    let cluster = lobbies(1);
    let lobby = cluster.agent::<Lobby>("tenant-a", "dice");
    let asked = lobby.clone();
    cluster.run(async move {
        for player in 0..SEATS {
            assert_eq!(asked.join(player.to_string()).await.unwrap(), Ok(player + 1));
        }
        assert_eq!(asked.join("late".into()).await.unwrap(), Err(LobbyError::AlreadyPlaying));
        assert!(asked.roll("0".into()).await.unwrap().is_ok_and(|points| (1..=6).contains(&points)));
    });
    for _ in 0..=IDLE_TICKS {
        cluster.tick();
    }
    cluster.run(async move {
        assert_eq!(lobby.look().await, Err(AgentQueryError::AgentNotFound(lobby.id().clone())));
    });
}

/// The node that leads the lobby dies while two players wait, and another while they play.
#[test]
fn a_game_goes_on_when_nodes_die() {
    for seed in 2..6 {
        let mut cluster = lobbies(seed);
        let lobby = cluster.agent::<Lobby>("tenant-a", "dice");
        let asked = lobby.clone();
        cluster.run(async move {
            for player in ["ann", "ben"] {
                asked.join(player.into()).await.unwrap().unwrap();
            }
        });
        let first = cluster.leader_of(lobby.id()).expect("the shard is led");
        cluster.kill(first);
        for _ in 0..=PATIENCE_TICKS {
            cluster.tick();
        }
        let asked = lobby.clone();
        let points = cluster.run(async move {
            assert_eq!(asked.look().await.unwrap().0, Phase::Playing, "seed {seed}");
            asked.roll("ann".into()).await.unwrap().unwrap()
        });
        cluster.restart(first);
        cluster.run_for(std::time::Duration::from_secs(30));
        // That was long enough for the game to end; the state that died with the first node did not come back.
        let asked = lobby.clone();
        let found = cluster.run(async move { asked.look().await });
        assert_eq!(found, Err(AgentQueryError::AgentNotFound(lobby.id().clone())), "seed {seed}: {points}");
    }
}

#[test]
fn a_lobby_that_is_cut_off_rolls_no_dice_that_count() {
    let cluster = lobbies(6);
    let lobby = cluster.agent::<Lobby>("tenant-a", "dice");
    let asked = lobby.clone();
    cluster.run(async move {
        for player in 0..SEATS {
            asked.join(player.to_string()).await.unwrap().unwrap();
        }
    });
    let leader = cluster.leader_of(lobby.id()).expect("the shard is led");
    cluster.partition(&[leader]);
    let asked = lobby.clone();
    let rolled = cluster.run(async move { asked.roll("0".into()).await.unwrap().unwrap() });
    cluster.heal();
    let (_, players) = cluster.run(async move { lobby.look().await.unwrap() });
    assert_eq!(players["0"], rolled);
}

#[test]
fn a_tenant_has_as_many_sessions_as_it_may_and_a_place_for_another_when_one_ends() {
    let cluster = Cluster::new(7, AgentTypes::new().with::<Session>());
    let client = cluster.client().clone();
    let sessions: Vec<_> =
        (0..5).map(|user| cluster.agent::<Session>("tenant-b", &format!("user-{user}"))).collect();
    let asked = sessions.clone();
    cluster.run(async move {
        client.put_quota("tenant-b", 3).await.unwrap();
        let write = |session: usize| asked[session].set("language".into(), "en".into());
        let results = join_all((0..5).map(write)).await;
        let full = |error: &AgentError| {
            matches!(error, AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { limit: 3, .. }))
        };
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
        assert!(
            results
                .iter()
                .all(|result| result.as_ref().is_ok_and(Option::is_none) || result.as_ref().is_err_and(full)),
            "{results:?}"
        );
        let let_in = results.iter().position(Result::is_ok).unwrap();
        assert_eq!(asked[let_in].read("language".into()).await.unwrap().as_deref(), Some("en"));
        asked[let_in].log_out().await.unwrap();
    });
    // Those that nobody writes to end by themselves.
    for _ in 0..6 {
        cluster.tick();
    }
    let client = cluster.client().clone();
    cluster.run(async move {
        assert_eq!(client.quota_usage("tenant-b").await.unwrap().agents, 0);
        for session in &sessions[..3] {
            assert_eq!(session.set("language".into(), "fr".into()).await.unwrap(), None);
        }
        assert_eq!(sessions[0].describe().await.unwrap(), "user-0 of tenant-b: 1 values");
    });
}
