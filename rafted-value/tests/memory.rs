//! What an idle group costs in memory: a node holds ten thousand of them, so every field of a member counts.

mod support;

use rafted_value::{Data, Found, GroupConfig, GroupId, Host, HostConfig, NodeId};
use support::{Counters, SECOND, World};

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

/// Groups that are there before anything is counted: what grows with the first of them is no group's own.
const WARM_GROUPS: u64 = 30;
const GROUPS: u64 = 60;
const NODES: usize = 3;
/// What one member with an empty value may hold on the heap. It was 9,700 bytes before members were boxed, shared one
/// registry and gave back what raft sets aside for traffic.
const MEMBER_BYTES_MAX: usize = 5_000;

fn found(world: &World, groups: std::ops::Range<u64>) {
    let hosts: Vec<Host> = world.nodes.iter().map(|node| node.host.clone()).collect();
    let nodes: Vec<NodeId> = world.nodes.iter().map(support::Node::id).collect();
    world.run(60 * SECOND, async move {
        for group in groups.map(GroupId) {
            for host in &hosts {
                let (data, config) = (Counters::NAME.into(), GroupConfig::default());
                host.found(Found { group, data, config, nodes: nodes.clone() }).await.expect("it is new");
            }
        }
    });
    // Leaders are elected, and what is not needed any more is given back.
    world.sim.run_for(4 * SECOND);
}

#[test]
fn an_idle_member_holds_less_than_five_kilobytes() {
    let mut world = World::empty(1);
    world.host_config = HostConfig { divergence_check_commands: 0, ..world.host_config };
    for _ in 0..NODES {
        world.start_node();
    }
    found(&world, 0..WARM_GROUPS);
    let _counting = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().curr_bytes;
    found(&world, 1_000..1_000 + GROUPS);
    let after = dhat::HeapStats::get().curr_bytes;
    let bytes = (after - before) / (GROUPS as usize * NODES);
    println!("{bytes} bytes a member");
    assert!(bytes < MEMBER_BYTES_MAX, "{bytes} bytes a member");
}
