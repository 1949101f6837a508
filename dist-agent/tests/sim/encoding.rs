//! Values that their types cannot encode harm nobody but their own caller.

use std::time::Duration;

use dist_agent::raft_kv::rafted_value::env::sleep;
use dist_agent::{AgentError, AgentHandle, AgentNotApplied, AgentQueryError};

use crate::agents::{Count, Fragile};
use crate::cluster::{Cluster, NODES};

/// Such a state once stopped its shard on every member at the next snapshot. Here a snapshot is taken for each node that
/// comes back empty, and every agent is as it was.
#[test]
fn a_state_that_does_not_encode_is_undone_on_every_member_and_harms_nobody() {
    let mut cluster = Cluster::new(41);
    let counters: Vec<_> = (0..12).map(|n| cluster.counter(&format!("room-{n}"))).collect();
    let fragile: AgentHandle<Fragile> = cluster.client.agent("tenant-a", "glass").expect("a valid identity");
    let (agent, others) = (fragile.clone(), counters.clone());
    cluster.run(async move {
        let refused = agent.command(vec![0; 7]).await.unwrap_err();
        let is_refused = matches!(&refused, AgentError::NotApplied(AgentNotApplied::Refused { .. }));
        assert!(is_refused && refused.to_string().contains("does not encode"), "{refused}");
        assert_eq!(agent.query(Fragile::default()).await, not_found(&agent));
        assert_eq!(agent.command(vec![1, 2]).await, Ok(2));
        for counter in &others {
            assert_eq!(counter.command(Count::Add(3)).await, Ok(3));
        }
        for _ in 0..2 {
            let undone = agent.command(vec![0; 5]).await.unwrap_err();
            let is_undone = matches!(&undone, AgentError::NotApplied(AgentNotApplied::Panicked { .. }));
            assert!(is_undone && undone.to_string().contains("does not encode"), "{undone}");
        }
        assert_eq!(agent.command(vec![3]).await, Ok(3));
    });
    for victim in 0..NODES {
        cluster.kill(victim);
        cluster.restart(victim);
        let env = cluster.nodes[victim].env.clone();
        cluster.wait(sleep(env.as_ref(), Duration::from_secs(30)));
    }
    cluster.run(async move {
        assert_eq!(fragile.query(Fragile::default()).await, Ok(Fragile(vec![1, 2, 3])));
        for counter in &counters {
            assert_eq!(counter.query(()).await, Ok(3));
        }
    });
}

fn not_found(agent: &AgentHandle<Fragile>) -> Result<Fragile, AgentQueryError> {
    Err(AgentQueryError::AgentNotFound(agent.id().clone()))
}

/// Encoding a caller's value once panicked.
#[test]
fn a_query_or_answer_that_does_not_encode_is_an_error_value() {
    let cluster = Cluster::new(42);
    let fragile: AgentHandle<Fragile> = cluster.client.agent("tenant-a", "glass").expect("a valid identity");
    cluster.run(async move {
        assert_eq!(fragile.command(vec![1, 2]).await, Ok(2));
        let unsent = fragile.query(Fragile(vec![0; 7])).await;
        assert!(matches!(unsent, Err(AgentQueryError::Unencodable { .. })), "{unsent:?}");
        let refused = fragile.query(Fragile(vec![0; 5])).await.unwrap_err();
        assert!(refused.to_string().contains("its answer does not encode"), "{refused}");
        assert_eq!(fragile.query(Fragile(vec![3])).await, Ok(Fragile(vec![1, 2, 3])));
    });
}
