//! What a handle may be told about its calls.

use std::time::Duration;

use dist_agent::raft_kv::KvNotApplied;
use dist_agent::raft_kv::rafted_value::NotApplied;
use dist_agent::{AgentError, AgentId, AgentNotApplied, AgentQueryError, DistAgent, Rate};

use crate::agents::{Count, Counter, Fragile};
use crate::cluster::{Cluster, SECOND, config};

/// A query takes one token, a command three. In the original, a command from a bucket of two tokens was an exception
/// (fault 26).
#[test]
fn a_rate_limit_refuses_what_is_over_it_and_says_how_long_to_wait() {
    let cluster = Cluster::new(91);
    let counter = cluster.counter("room-42");
    let limited = counter.rate_limit(Rate::per_second(1).unwrap(), 7);
    cluster.run(async move {
        assert_eq!(limited.command(Count::Add(1)).await, Ok(1));
        assert_eq!(limited.command(Count::Add(1)).await, Ok(2));
        assert_eq!(limited.query(()).await, Ok(2));
        let Err(AgentQueryError::RateLimitReached { wait, .. }) = limited.query(()).await else {
            panic!("no token is left")
        };
        assert!(wait > Duration::ZERO && wait <= SECOND, "{wait:?}");
        let Err(AgentError::NotApplied(AgentNotApplied::RateLimitReached { wait, .. })) =
            limited.command(Count::Add(1)).await
        else {
            panic!("no tokens are left")
        };
        assert!(wait > 2 * SECOND && wait <= 3 * SECOND, "{wait:?}");
        // Another handle without a limit is not limited, and another agent has tokens of its own.
        assert_eq!(counter.command(Count::Add(1)).await, Ok(3));
        let tiny = counter.rate_limit(Rate::per_second(1).unwrap(), 2);
        let error = tiny.command(Count::Add(1)).await.unwrap_err();
        assert!(matches!(error, AgentError::NotApplied(AgentNotApplied::RateLimit { .. })), "{error}");
    });
}

/// Under overload most calls are refused, so a refusal is the first thing that happens to a call: it costs the cluster
/// nothing, and the caller no tokens.
#[test]
fn a_command_too_many_is_refused_before_it_takes_tokens() {
    let cluster = Cluster::new(97);
    let env = cluster.sim.start_node("narrow", "sim:narrow");
    let mut narrow = config();
    narrow.fleet.calls_max = 1;
    let client = cluster.sim.spawn_on(&env, DistAgent::connect(env.clone(), narrow));
    let client = cluster.wait(client).expect("not killed").expect("the client connects");
    let counter = client.agent::<Counter>("tenant-a", "room-42").unwrap();
    let limited = counter.rate_limit(Rate::per_second(1).unwrap(), 9);
    let [first, second, third, fourth] = [(); 4].map(|()| limited.clone());
    // The first finds out what later ones know.
    let warm = cluster.sim.spawn_on(&env, async move { first.command(Count::Add(1)).await });
    assert_eq!(cluster.wait(warm).expect("not killed"), Ok(1));
    let one = cluster.sim.spawn_on(&env, async move { second.command(Count::Add(1)).await });
    let other = cluster.sim.spawn_on(&env, async move { third.command(Count::Add(1)).await });
    let refused = cluster.wait(other).expect("not killed");
    let Err(AgentError::NotApplied(AgentNotApplied::Store(KvNotApplied::Group(refusal)))) = refused else {
        panic!("one is under way already: {refused:?}")
    };
    assert!(matches!(refusal, NotApplied::Overloaded { .. }), "{refusal}");
    assert_eq!(cluster.wait(one).expect("not killed"), Ok(2));
    let last = cluster.sim.spawn_on(&env, async move { fourth.command(Count::Add(1)).await });
    assert_eq!(cluster.wait(last).expect("not killed"), Ok(3), "three commands have taken three times three");
}

#[test]
fn a_handle_that_shall_not_activate_says_so() {
    let cluster = Cluster::new(92);
    let counter = cluster.counter("room-42");
    cluster.run(async move {
        let careful = counter.if_active();
        let not_active = AgentNotApplied::NotActive(counter.id().clone());
        assert_eq!(careful.command(Count::Add(1)).await, Err(AgentError::NotApplied(not_active)));
        assert_eq!(counter.command(Count::Add(1)).await, Ok(1));
        assert_eq!(careful.command(Count::Add(1)).await, Ok(2));
    });
}

/// A client could spin for ever on its retries in the original. Here both time and number of attempts end a call.
#[test]
fn a_call_that_reaches_nobody_ends_in_its_time_or_after_its_attempts() {
    let cluster = Cluster::new(93);
    let counter = cluster.counter("room-42");
    let first = counter.clone();
    cluster.run(async move { first.command(Count::Add(1)).await.unwrap() });
    for node in 0..3 {
        cluster.kill(node);
    }
    let begin = cluster.sim.elapsed();
    let timed = counter.timeout(2 * SECOND);
    let error = cluster.run(async move { timed.command(Count::Add(1)).await.unwrap_err() });
    assert!(cluster.sim.elapsed() - begin < 3 * SECOND, "{error}");
    let begin = cluster.sim.elapsed();
    let tried = counter.retries(2);
    let error = cluster.run(async move { tried.query(()).await.unwrap_err() });
    assert!(cluster.sim.elapsed() - begin < 5 * SECOND, "{error}");
}

#[test]
fn a_handle_serialises_as_the_identity_from_which_it_is_made_again() {
    let cluster = Cluster::new(94);
    let counter = cluster.counter("room-42");
    let json = serde_json::to_string(&counter).unwrap();
    assert_eq!(json, r#"{"quota":"tenant-a","agent_type":"counter","key":"room-42"}"#);
    let id: AgentId = serde_json::from_str(&json).unwrap();
    assert_eq!(cluster.client.handle::<Counter>(&id).unwrap().id(), counter.id());
    let error = cluster.client.handle::<Fragile>(&id).unwrap_err();
    assert_eq!(error.to_string(), "the identity names an agent of type \"counter\", not \"fragile\"");
}

/// A client that died before it saw the reply is followed by another, which sends the same order again.
#[test]
fn a_command_with_an_idempotency_key_runs_once_whoever_sends_it_again() {
    let cluster = Cluster::new(95);
    let counter = cluster.counter("room-42");
    let from_node = cluster.nodes[0].agents.agent::<Counter>("tenant-a", "room-42").unwrap();
    let first = counter.clone();
    cluster.run(async move {
        let order = first.idempotency_key("order-1");
        // The agent is activated by it, which is a step more.
        assert_eq!(order.command(Count::Add(5)).await, Ok(5));
        assert_eq!(order.command(Count::Add(5)).await, Ok(5));
    });
    let again = cluster.sim.spawn_on(&cluster.nodes[0].env, async move {
        from_node.idempotency_key("order-1").command(Count::Add(5)).await
    });
    assert_eq!(cluster.wait(again), Some(Ok(5)));
    cluster.run(async move {
        assert_eq!(counter.idempotency_key("order-2").command(Count::Add(1)).await, Ok(6));
        assert_eq!(counter.query(()).await, Ok(6));
    });
}

/// The second sending found no place for an agent that was there already, and was told that the quota's limit was reached
/// and nothing had run.
#[test]
fn a_command_that_took_the_last_place_of_its_quota_is_answered_when_it_is_sent_again() {
    let cluster = Cluster::new(98);
    let agents = cluster.client.clone();
    let of = |agents: &DistAgent, key: &str, order: &str| {
        agents.agent::<Counter>("one", key).unwrap().idempotency_key(order)
    };
    let (winner, loser) = (of(&agents, "winner", "order-1"), of(&agents, "loser", "order-2"));
    let is_full = |result: Result<u64, AgentError>| {
        matches!(result, Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { limit: 1, .. })))
    };
    let (first, second) = (winner.clone(), loser.clone());
    let client = agents.clone();
    cluster.run(async move {
        client.put_quota("one", 1).await.unwrap();
        assert_eq!(first.command(Count::Add(5)).await, Ok(5));
        assert_eq!(first.command(Count::Add(5)).await, Ok(5));
        for _ in 0..3 {
            assert!(is_full(second.command(Count::Add(1)).await));
        }
    });
    // Places that were shown have been counted by now.
    cluster.sim.run_for(10 * SECOND);
    let (first, second) = (winner.clone(), loser.clone());
    let client = agents.clone();
    cluster.run(async move {
        assert_eq!(first.command(Count::Add(5)).await, Ok(5));
        assert!(is_full(second.command(Count::Add(1)).await));
        // What was refused runs once there is a place, and once only.
        client.put_quota("one", 2).await.unwrap();
        assert_eq!(second.command(Count::Add(1)).await, Ok(1));
        client.put_quota("one", 1).await.unwrap();
        assert_eq!(second.command(Count::Add(1)).await, Ok(1));
        // Nor does the end of the quota undo that they ran.
        client.delete_quota("one").await.unwrap();
    });
    cluster.sim.run_for(10 * SECOND);
    cluster.run(async move {
        assert_eq!(winner.query(()).await, Err(AgentQueryError::AgentNotFound(winner.id().clone())));
        let (first, second) = (winner, loser);
        assert_eq!(first.command(Count::Add(5)).await, Ok(5));
        assert_eq!(second.command(Count::Add(1)).await, Ok(1));
        let error = of(&agents, "winner", "order-3").command(Count::Add(1)).await.unwrap_err();
        assert!(matches!(error, AgentError::NotApplied(AgentNotApplied::QuotaNotFound(_))), "{error}");
    });
}

#[test]
fn an_answer_that_may_be_stale_is_never_older_than_it_may_be() {
    let cluster = Cluster::new(96);
    let counter = cluster.counter("room-42");
    let stale = counter.stale_ok(2 * SECOND);
    let (asked, exact) = (stale.clone(), counter.clone());
    cluster.run(async move {
        counter.command(Count::Add(1)).await.unwrap();
        assert_eq!(asked.query(()).await, Ok(1));
        counter.command(Count::Add(1)).await.unwrap();
        assert_eq!(asked.query(()).await, Ok(1));
        assert_eq!(exact.query(()).await, Ok(2));
    });
    cluster.sim.run_for(2 * SECOND);
    let asked = stale.clone();
    cluster.run(async move { assert_eq!(asked.query(()).await, Ok(2)) });
    for node in 0..3 {
        cluster.kill(node);
    }
    let (asked, soon) = (stale.clone(), stale.timeout(SECOND));
    cluster.run(async move { assert_eq!(asked.query(()).await, Ok(2)) });
    cluster.sim.run_for(2 * SECOND);
    cluster.run(async move { assert!(soon.query(()).await.is_err()) });
}

/// The first of the two commands that a key stands for had found no agent, and was taken for the whole.
#[test]
fn a_command_that_has_run_under_a_key_is_answered_when_it_is_sent_again_to_an_active_agent_only() {
    let cluster = Cluster::new(198);
    let counter = cluster.counter("room-7");
    cluster.run(async move {
        assert_eq!(counter.idempotency_key("order-1").command(Count::Add(5)).await, Ok(5));
        let again = counter.if_active().idempotency_key("order-1");
        assert_eq!(again.command(Count::Add(5)).await, Ok(5));
        let other = counter.if_active().idempotency_key("order-2");
        assert_eq!(other.command(Count::Add(1)).await, Ok(6));
        assert_eq!(other.command(Count::Add(1)).await, Ok(6));
    });
    let absent = cluster.counter("room-8").if_active().idempotency_key("order-3");
    cluster.run(async move {
        for _ in 0..2 {
            let error = absent.command(Count::Add(1)).await.unwrap_err();
            assert!(matches!(error, AgentError::NotApplied(AgentNotApplied::NotActive(_))), "{error}");
        }
    });
}
