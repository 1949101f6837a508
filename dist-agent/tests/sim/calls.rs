//! What a caller sees while nothing goes wrong around it.

use dist_agent::{AgentError, AgentIdError, AgentNotApplied, AgentQueryError, AgentTypes, DistAgent};
use futures_util::future::join_all;

use crate::agents::{Count, Counter, Stranger};
use crate::cluster::Cluster;

#[test]
fn an_agent_lives_from_its_first_command_until_it_ends_itself() {
    let cluster = Cluster::new(1);
    let counter = cluster.counter("room-42");
    cluster.run(async move {
        let not_found = Err(AgentQueryError::AgentNotFound(counter.id().clone()));
        assert_eq!(counter.query(()).await, not_found);
        assert_eq!(counter.command(Count::Add(5)).await, Ok(5));
        assert_eq!(counter.command(Count::Add(2)).await, Ok(7));
        assert_eq!(counter.query(()).await, Ok(7));
        assert_eq!(counter.command(Count::End).await, Ok(7));
        assert_eq!(counter.query(()).await, not_found);
        assert_eq!(counter.command(Count::Add(1)).await, Ok(1));
    });
}

/// In the original, concurrent first commands were numbered by the size of a map: one client's acknowledgement ran another's
/// command, and one command was lost (fault 15). There is no such protocol here: each first command is whole.
#[test]
fn sixty_four_concurrent_first_commands_have_sixty_four_effects() {
    let cluster = Cluster::new(2);
    let counter = cluster.counter("new");
    let (mut replies, value) = cluster.run(async move {
        let commands = (0..64).map(|_| counter.command(Count::Add(1)));
        let replies: Vec<u64> = join_all(commands).await.into_iter().map(Result::unwrap).collect();
        (replies, counter.query(()).await.unwrap())
    });
    replies.sort_unstable();
    assert_eq!(replies, (1..=64).collect::<Vec<_>>());
    assert_eq!(value, 64);
}

/// In the original, a query during an activation got an undocumented error (fault 19).
#[test]
fn a_query_beside_a_first_command_finds_the_agent_or_does_not() {
    let cluster = Cluster::new(3);
    let counter = cluster.counter("new");
    cluster.run(async move {
        let command = counter.command(Count::Add(1));
        let queries = join_all((0..16).map(|_| counter.query(())));
        let (added, answers) = futures_util::future::join(command, queries).await;
        assert_eq!(added, Ok(1));
        for answer in answers {
            let not_found = Err(AgentQueryError::AgentNotFound(counter.id().clone()));
            assert!(answer == Ok(1) || answer == not_found, "{answer:?}");
        }
    });
}

/// In the original, a handler that raises destroys the shard and every agent in it (fault 3).
#[test]
fn a_handler_that_panics_changes_nothing_and_harms_nobody() {
    let cluster = Cluster::new(4);
    let counters: Vec<_> = (0..12).map(|n| cluster.counter(&format!("room-{n}"))).collect();
    cluster.run(async move {
        for counter in &counters {
            assert_eq!(counter.command(Count::Add(3)).await, Ok(3));
        }
        for _ in 0..3 {
            let error = counters[0].command(Count::AddAndPanic(100)).await.unwrap_err();
            let panicked = matches!(&error, AgentError::NotApplied(AgentNotApplied::Panicked { agent, .. }) if agent == counters[0].id());
            assert!(panicked, "{error}");
        }
        for counter in &counters {
            assert_eq!(counter.query(()).await, Ok(3));
            assert_eq!(counter.command(Count::Add(1)).await, Ok(4));
        }
    });
}

/// In the original, a command for an agent type that a node does not know kills the shard (fault 24).
#[test]
fn a_command_for_a_type_that_no_node_knows_is_refused_and_the_shard_lives_on() {
    let cluster = Cluster::new(5);
    let refused = cluster.nodes[0].agents.agent::<Stranger>("tenant-a", "room-42").unwrap_err();
    assert_eq!(refused, AgentIdError::UnknownAgentType("stranger".into()));
    // A client knows the types of its own program, not those of the nodes.
    let strangers: Vec<_> =
        (0..16).map(|n| cluster.client.agent::<Stranger>("tenant-a", &format!("{n}")).unwrap()).collect();
    let counters: Vec<_> = (0..16).map(|n| cluster.counter(&format!("{n}"))).collect();
    cluster.run(async move {
        for stranger in &strangers {
            let unknown = AgentNotApplied::UnknownAgentType(stranger.id().clone());
            assert_eq!(stranger.command(()).await, Err(AgentError::NotApplied(unknown)));
            let not_found = AgentQueryError::AgentNotFound(stranger.id().clone());
            assert_eq!(stranger.query(()).await, Err(not_found));
        }
        for counter in &counters {
            assert_eq!(counter.command(Count::Add(1)).await, Ok(1));
        }
    });
}

#[test]
fn an_identity_that_cannot_be_is_refused_before_anything_is_sent() {
    let cluster = Cluster::new(6);
    let agent = |quota: &str, key: &str| cluster.client.agent::<Counter>(quota, key).map(|_| ()).unwrap_err();
    assert_eq!(agent("", "key").to_string(), "the quota name is empty");
    assert_eq!(agent("quota", "").to_string(), "the agent key is empty");
    let long = agent("quota", &"k".repeat(2000)).to_string();
    assert_eq!(long, "the agent key has 2000 bytes, over the limit of 1024");
}

#[test]
fn nodes_count_the_agents_that_they_hold() {
    let cluster = Cluster::new(7);
    let counters: Vec<_> = (0..20).map(|n| cluster.counter(&format!("room-{n}"))).collect();
    cluster.run(async move {
        for counter in &counters {
            counter.command(Count::Add(1)).await.unwrap();
        }
    });
    cluster.sim.run_for(crate::cluster::SECOND);
    for node in &cluster.nodes {
        let agents = node.agents.clone();
        let held = cluster.wait(cluster.sim.spawn_on(&node.env, async move { agents.local_agents().await }));
        assert_eq!(held, Some(20));
    }
}

/// Settings that differ must not keep a node away that could hold members.
#[test]
fn a_node_with_another_number_of_shards_takes_what_it_finds() {
    let cluster = Cluster::new(8);
    let env = cluster.sim.start_node("node-4", "sim:4");
    let mut config = crate::cluster::config();
    config.agents.shards = 9;
    let start = DistAgent::start(env.clone(), config, crate::cluster::types());
    let agents = cluster.wait(cluster.sim.spawn_on(&env, start)).expect("not killed").expect("it starts");
    let answer = cluster.sim.spawn_on(&env, async move {
        let counter = agents.agent::<Counter>("tenant-a", "room-42").expect("a valid identity");
        counter.command(Count::Add(5)).await
    });
    assert_eq!(cluster.wait(answer), Some(Ok(5)));
}

#[test]
fn settings_that_cannot_work_are_refused_before_the_node_joins() {
    let cluster = Cluster::new(9);
    let env = cluster.sim.start_node("node-4", "sim:4");
    let mut config = crate::cluster::config();
    config.agents.shards = 0;
    let start = DistAgent::start(env.clone(), config, AgentTypes::new().with::<Counter>());
    let error = cluster.wait(cluster.sim.spawn_on(&env, start)).expect("not killed").unwrap_err();
    assert_eq!(error.to_string(), "the configuration cannot work: shards is 0, not 1 to 4096");
}
