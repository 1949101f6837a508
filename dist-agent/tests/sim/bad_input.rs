//! Whatever a caller sends: an error value, an agent as it was before, and nobody else harmed.

use std::collections::BTreeSet;

use dist_agent::raft_kv::rafted_value::env::timeout;
use dist_agent::{
    Agent, AgentContext, AgentError, AgentHandle, AgentNotApplied, AgentPosition, AgentQueryError,
    AgentTypes, AgentTypesError, DistAgent, QueryContext, QuotaError, StartError, WatchError, WatchPosition,
};
use serde::{Deserialize, Serialize};

use crate::agents::{Count, Counter, Sleep};
use crate::cluster::{Cluster, SECOND};

/// The counter as a program of another version might have it: other commands, queries, replies and answers.
#[derive(Default, Serialize, Deserialize)]
struct OtherCounter {
    total: u64,
}

impl Agent for OtherCounter {
    const TYPE: &'static str = "counter";
    type Command = (u8, Vec<u8>);
    type Reply = String;
    type Query = String;
    type Answer = String;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, _: (u8, Vec<u8>)) -> String {
        self.total.to_string()
    }

    fn handle_query(&self, _: &QueryContext<'_>, _: String) -> String {
        self.total.to_string()
    }
}

/// Gives as many bytes as it is asked for, and counts; 13 of them it cannot bear to give.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Talker {
    commands: u64,
}

impl Agent for Talker {
    const TYPE: &'static str = "talker";
    type Command = usize;
    type Reply = Vec<u8>;
    type Query = usize;
    type Answer = (u64, Vec<u8>);

    fn handle_command(&mut self, _: &mut AgentContext<'_>, bytes: usize) -> Vec<u8> {
        self.commands += 1;
        vec![7; bytes]
    }

    fn handle_query(&self, _: &QueryContext<'_>, bytes: usize) -> (u64, Vec<u8>) {
        assert!(bytes != 13, "it cannot bear 13");
        (self.commands, vec![7; bytes])
    }
}

/// Over what one message holds.
const HUGE: usize = (4 << 20) + 1;

#[test]
fn a_command_or_query_that_does_not_decode_changes_nothing() {
    let cluster = Cluster::new(101);
    let (counter, beside) = (cluster.counter("room-42"), cluster.counter("beside"));
    let other: AgentHandle<OtherCounter> = cluster.client.agent("tenant-a", "room-42").unwrap();
    let fresh: AgentHandle<OtherCounter> = cluster.client.agent("tenant-a", "fresh").unwrap();
    let not_there = cluster.counter("fresh");
    cluster.run(async move {
        beside.command(Count::Add(1)).await.unwrap();
        counter.command(Count::Add(5)).await.unwrap();
        for agent in [&other, &fresh] {
            let error = agent.command((9, vec![1])).await.unwrap_err();
            let refused = matches!(&error, AgentError::NotApplied(AgentNotApplied::Refused { reason, .. }) if reason.contains("does not decode"));
            assert!(refused, "{error}");
        }
        // The agent's reply is no text.
        assert!(matches!(other.command((0, vec![])).await, Err(AgentError::Unknown(_))));
        let not_found = AgentQueryError::AgentNotFound(not_there.id().clone());
        assert_eq!(not_there.query(()).await, Err(not_found));
        assert_eq!(counter.query(()).await, Ok(5));
        assert_eq!(beside.command(Count::Add(1)).await, Ok(2));
    });
}

#[test]
fn a_reply_or_answer_that_is_too_large_changes_nothing() {
    let cluster = Cluster::new(102);
    let talker: AgentHandle<Talker> = cluster.client.agent("tenant-a", "loud").unwrap();
    let beside = cluster.counter("beside");
    cluster.run(async move {
        beside.command(Count::Add(1)).await.unwrap();
        let error = talker.command(HUGE).await.unwrap_err();
        assert!(
            matches!(&error, AgentError::NotApplied(_)) && error.to_string().contains("over the limit of"),
            "{error}"
        );
        assert_eq!(talker.query(1).await, Err(AgentQueryError::AgentNotFound(talker.id().clone())));
        assert_eq!(talker.command(3).await.unwrap().len(), 3);
        let error = talker.command(HUGE).await.unwrap_err();
        assert!(
            matches!(&error, AgentError::NotApplied(_)) && error.to_string().contains("over the limit of"),
            "{error}"
        );
        let error = talker.query(HUGE).await.unwrap_err();
        assert!(error.to_string().contains("over the limit of"), "{error}");
        assert_eq!(talker.query(1).await, Ok((1, vec![7])));
        assert_eq!(beside.command(Count::Add(1)).await, Ok(2));
    });
}

#[test]
fn a_command_that_is_too_large_is_not_sent() {
    let cluster = Cluster::new(103);
    let other: AgentHandle<OtherCounter> = cluster.client.agent("tenant-a", "room-42").unwrap();
    cluster.run(async move {
        let error = other.command((0, vec![0; 2 << 20])).await.unwrap_err();
        assert!(matches!(&error, AgentError::NotApplied(AgentNotApplied::Store(_))), "{error}");
        assert!(error.to_string().contains("over the limit of 1048576"), "{error}");
        let error = other.query("q".repeat(HUGE)).await.unwrap_err();
        assert!(error.to_string().contains("over the limit of"), "{error}");
    });
}

#[test]
fn a_quota_that_cannot_be_is_refused_before_anything_is_sent() {
    let cluster = Cluster::new(104);
    let client = cluster.client.clone();
    cluster.run(async move {
        for name in ["", "a\0b", &"q".repeat(256)] {
            assert!(matches!(client.put_quota(name, 1).await, Err(QuotaError::Name(_))), "{name:?}");
            assert!(matches!(client.quota_usage(name).await, Err(QuotaError::Name(_))), "{name:?}");
        }
        assert!(matches!(client.delete_quota("unheard-of").await, Err(QuotaError::NotFound(_))));
    });
}

#[test]
fn two_types_with_one_name_are_refused_when_the_node_starts() {
    let cluster = Cluster::new(105);
    let env = cluster.sim.start_node("node-4", "sim:4");
    let types = AgentTypes::new().with::<Counter>().with::<OtherCounter>();
    let start = DistAgent::start(env.clone(), crate::cluster::config(), types);
    let error = cluster.wait(cluster.sim.spawn_on(&env, start)).expect("not killed").unwrap_err();
    assert!(matches!(error, StartError::AgentTypes(AgentTypesError::Twice("counter"))), "{error}");
}

#[test]
fn a_query_that_panics_is_an_error_value_and_harms_nobody() {
    let cluster = Cluster::new(106);
    let talker: AgentHandle<Talker> = cluster.client.agent("tenant-a", "loud").unwrap();
    cluster.run(async move {
        talker.command(1).await.unwrap();
        for _ in 0..3 {
            let error = talker.query(13).await.unwrap_err();
            assert!(error.to_string().contains("it cannot bear 13"), "{error}");
            assert_eq!(talker.query(2).await, Ok((1, vec![7, 7])));
        }
        assert_eq!(talker.command(3).await.unwrap().len(), 3);
    });
}

/// A position is a place among all agents, which anybody may make up.
#[test]
fn a_position_of_ones_own_making_gives_the_agents_behind_it_and_no_others() {
    const AGENTS: usize = 40;
    let cluster = Cluster::new(107);
    let client = cluster.client.clone();
    cluster.run(async move {
        for n in 0..AGENTS {
            client
                .agent::<Counter>("tenant-a", &n.to_string())
                .unwrap()
                .command(Count::Add(1))
                .await
                .unwrap();
        }
        let mut sizes = Vec::new();
        for place in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let forged = postcard::to_stdvec(&place).unwrap();
            let mut position = Some(postcard::from_bytes::<AgentPosition>(&forged).unwrap());
            let mut found = BTreeSet::new();
            while let Some(from) = position {
                let page = client.list_agents::<Counter>("tenant-a", "", &from, 7).await.unwrap();
                assert!(page.next.as_ref() != Some(&from), "a page goes on");
                found.extend(page.agents);
                position = page.next;
            }
            sizes.push(found.len());
        }
        assert_eq!((sizes[0], sizes[1], sizes[3], sizes[4]), (AGENTS, AGENTS, 0, 0));
        assert!(sizes[2] > 0 && sizes[2] < AGENTS, "{sizes:?}");
        assert!(postcard::from_bytes::<AgentPosition>(&[0xff; 20]).is_err());
        let start = AgentPosition::default();
        for agents_max in [0, u32::MAX] {
            let page = client.list_agents::<Counter>("tenant-a", "", &start, agents_max).await.unwrap();
            assert!(!page.agents.is_empty());
        }
        let huge = client.list_agents::<Counter>("tenant-a", &"p".repeat(HUGE), &start, 1).await;
        assert!(huge.unwrap_err().to_string().contains("over the limit of"));
    });
}

#[test]
fn a_watch_from_a_revision_to_come_waits_for_what_is_behind_it() {
    let cluster = Cluster::new(108);
    let sleeper = cluster.sleeper("watched");
    let env = cluster.client_env.clone();
    cluster.run(async move {
        sleeper.command(Sleep::Keep).await.unwrap();
        for revision in [3, u64::MAX - 1, u64::MAX] {
            let mut watch = sleeper.watch(WatchPosition::after_revision(revision));
            assert!(timeout(env.as_ref(), 2 * SECOND, watch.next()).await.is_none(), "behind {revision}");
        }
        let mut watch = sleeper.watch(WatchPosition::after_revision(3));
        for _ in 0..4 {
            sleeper.command(Sleep::Keep).await.unwrap();
        }
        for revision in [4, 5] {
            assert_eq!(watch.next().await.unwrap().revision, revision);
        }
        let forged: WatchPosition = postcard::from_bytes(&[42, 0]).unwrap();
        assert!(matches!(sleeper.watch(forged).next().await, Err(WatchError::Ended(_))));
    });
}
