//! Whatever a caller sends: an error value, an agent as it was before, and nobody else harmed.

use dist_agent::{
    Agent, AgentContext, AgentError, AgentHandle, AgentNotApplied, AgentQueryError, AgentTypes,
    AgentTypesError, DistAgent, QueryContext, QuotaError, StartError,
};
use serde::{Deserialize, Serialize};

use crate::agents::{Count, Counter};
use crate::cluster::Cluster;

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

/// Gives as many bytes as it is asked for, and counts.
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
