//! Directories of other clusters, nodes that speak for others, and members that nobody is left to tell: refused, or ended.

use crate::support::{MS, SECOND, World, address, count_up, members, name, read};
use raft_fleet::rafted_value::env::Env;
use raft_fleet::rafted_value::sim::SimDisk;
use raft_fleet::rafted_value::transport::{ClusterId, Lane, ServiceId};
use raft_fleet::{FleetError, Hello, NodeInfo, encode};
use twox_hash::XxHash3_64;

/// Two clusters on one network: places 0 and 1 are one, 2 and 3 the other.
fn two_clusters(seed: u64) -> World {
    let mut world = World::new(seed, 2);
    world.disks = (0..4).map(|_| SimDisk::new(world.sim.rng())).collect();
    for pair in [[0, 1], [2, 3]] {
        world.config.seeds = pair.into_iter().map(address).collect();
        pair.into_iter().for_each(|place| world.begin(place));
        pair.into_iter().for_each(|place| world.finish(place, 30 * SECOND));
    }
    world
}

fn cluster(world: &World, place: usize) -> ClusterId {
    world.fleet(place).cluster().cluster().expect("it is formed")
}

/// It once looked for its own cluster for five minutes, and then said only that it had found nobody.
#[test]
fn a_directory_of_another_cluster_is_refused_by_name_and_left_as_it_is() {
    let mut world = two_clusters(900);
    let (found, expected) = (cluster(&world, 1), cluster(&world, 2));
    assert_ne!(found, expected);
    world.lose_power(1);
    let before = world.disks[1].files();
    world.config.seeds = vec![address(2), address(3)];
    let begun = world.sim.elapsed();
    world.begin(1);
    let refused = world.try_finish(1, 30 * SECOND).expect("it ends").map(drop).unwrap_err();
    let directory = world.disks[1].disk().place();
    assert_eq!(refused, FleetError::OtherCluster { directory: directory.clone(), found, expected });
    let said = refused.to_string();
    assert!(said.contains(&directory) && said.contains(&found.to_string()), "{said}");
    assert!(world.sim.elapsed() - begun < 2 * SECOND, "it is told at once");
    world.kill(1);
    assert_eq!(world.disks[1].files(), before);

    // With its own cluster at one of its seeds it comes back, whoever is at the other.
    world.config.seeds = vec![address(0), address(3)];
    world.restart(1);
    assert_eq!(cluster(&world, 1), found);
}

#[test]
fn a_node_that_is_told_its_cluster_takes_part_in_no_other() {
    let mut world = two_clusters(901);
    let (own, other) = (cluster(&world, 1), cluster(&world, 2));
    world.lose_power(1);
    let before = world.disks[1].files();
    world.config.seeds = vec![address(0), address(1)];
    world.config.host.cluster = Some(other);
    world.begin(1);
    let refused = world.try_finish(1, 30 * SECOND).expect("it ends").map(drop).unwrap_err();
    let directory = world.disks[1].disk().place();
    assert_eq!(refused, FleetError::OtherCluster { directory, found: own, expected: other });
    world.kill(1);
    assert_eq!(world.disks[1].files(), before);

    // One that has no cluster yet.
    world.disks.push(SimDisk::new(world.sim.rng()));
    world.begin(4);
    let refused = world.try_finish(4, 30 * SECOND).expect("it ends").map(drop).unwrap_err();
    assert_eq!(refused, FleetError::WrongCluster { found: own, expected: other });
    world.kill(4);
    world.config.host.cluster = Some(own);
    world.restart(1);
    world.restart(4);
    assert_eq!((cluster(&world, 1), cluster(&world, 4)), (own, own));
    assert_eq!(world.fleet(0).cluster().nodes().len(), 3);
}

/// A file that was copied into the directory does not make it another cluster's: the log has the last word.
#[test]
fn a_log_of_another_cluster_is_refused_whatever_lies_beside_it() {
    let mut world = two_clusters(902);
    let (found, expected) = (cluster(&world, 0), cluster(&world, 2));
    let node = world.id(0);
    (0..4).for_each(|place| world.lose_power(place));
    // As `fleet/membership` is written: a checksum, a version, the node, its cluster, and no founding record.
    let payload = encode(&(0_u8, node, expected, None::<u8>));
    let sum = XxHash3_64::oneshot(&payload).to_le_bytes();
    world.disks[0].put("fleet/membership", Some([&sum[..], &payload[..]].concat()));
    let before = world.disks[0].files();
    world.config.seeds = vec![address(0)];
    world.begin(0);
    let refused = world.try_finish(0, 30 * SECOND).expect("it ends").map(drop).unwrap_err();
    let directory = world.disks[0].disk().place();
    assert_eq!(refused, FleetError::OtherCluster { directory, found, expected });
    world.kill(0);
    assert_eq!(world.disks[0].files(), before);
}

/// The number of a hello, and of the answer to it, in what nodes say to each other.
const HELLO: u8 = 0;
/// ... and of the answer to what makes no sense.
const MALFORMED: u8 = 7;

/// It once took whatever address a hello brought, for whatever node.
#[test]
fn a_hello_in_the_name_of_another_node_is_refused() {
    let world = World::formed(903, 3);
    let (victim, other) = (world.id(0), world.id(1));
    let liar = world.sim.start_node("liar", "liar:1");
    liar.transport().set_address(victim, &address(0));
    let say = |node, at: &str| {
        let info = NodeInfo { node, name: "liar".into(), zone: "z".into(), address: at.into() };
        let hello = Hello { info, addresses: Vec::new(), granted: None };
        let payload = [&[HELLO][..], &encode(&hello)[..]].concat();
        let call = liar.transport().call(victim, Lane::Normal, ServiceId(16), payload.into(), SECOND);
        world.sim.run_until(5 * SECOND, call).expect("it ends").expect("it is answered")
    };
    assert_eq!(say(liar.transport().local().node, "liar:1")[0], HELLO);
    assert_eq!(say(other, "liar:1")[0], MALFORMED);
    assert_eq!(say(liar.transport().local().node, "")[0], MALFORMED);
}

/// Where a node lives is kept for good. A member that said hello under ever other ids had each node keep them all, and dial
/// them, long after the cluster was formed.
#[test]
fn a_hello_of_a_node_that_the_cluster_does_not_list_leaves_no_address_behind() {
    let world = World::formed(905, 3);
    let victim = world.fleet(0);
    let transport = victim.env().transport();
    let liar = world.sim.start_node("liar", "liar:1");
    let node = liar.transport().local().node;
    liar.transport().set_address(world.id(0), &address(0));
    let info = NodeInfo { node, name: "liar".into(), zone: "z".into(), address: "liar:1".into() };
    let hello = encode(&Hello { info, addresses: Vec::new(), granted: None });
    let payload = [&[HELLO][..], &hello[..]].concat();
    let call = liar.transport().call(world.id(0), Lane::Normal, ServiceId(16), payload.into(), SECOND);
    let answer = world.sim.run_until(5 * SECOND, call).expect("it ends").expect("it is answered");
    assert_eq!(answer[0], HELLO, "it is told where it is");
    world.sim.kill(&liar);
    world.sim.run_for(SECOND);
    let sent = transport.cast(node, Lane::Normal, ServiceId(16), encode(&0_u8));
    assert!(sent.as_ref().is_err_and(|error| error.to_string().ends_with("is not known")), "{sent:?}");
}

/// It asked for ever, and its node was never empty: those that could have told it had no members any more themselves.
#[test]
fn a_member_that_comes_back_when_all_that_it_knew_have_gone_ends_as_well() {
    let mut world = World::formed_on_disks(904, 6);
    world.add_groups(&world.fleet(0), 1);
    assert_eq!(world.run(count_up(world.fleet(0), name(0), 10, MS)).applied, 10);
    let group = world.fleet(0).cluster().groups()[&name(0)].id;
    let holders: Vec<usize> = (0..6).filter(|place| members(&world, *place).contains_key(&group)).collect();
    let [away, rest @ ..] = &holders[..] else { panic!("{holders:?}") };
    let (away, node) = (*away, world.id(*away));
    let witness = (0..6).find(|place| !holders.contains(place)).expect("three of six hold nothing");
    world.lose_power(away);
    world.until(30 * SECOND, "it is purged", |world| {
        !world.fleet(witness).cluster().nodes().contains_key(&node)
    });
    // The group moves away from all that its member knew, and to zones where it is not.
    let zones = (0..3).filter(|zone| *zone != away % 3).map(|zone| format!("zone-{zone}"));
    let zones: Vec<String> = zones.collect();
    let fleet = world.fleet(witness);
    world.run(async move {
        fleet.pin_group(&name(0), zones.iter().map(String::as_str)).await.expect("there is such a group");
    });
    for place in rest {
        let fleet = world.fleet(*place);
        world.run(async move {
            fleet.deactivate().await.expect("it was active");
            fleet.drained(60 * SECOND).await.expect("it is empty in time");
        });
    }
    world.restart(away);
    assert!(members(&world, away).contains_key(&group), "it does not know yet");
    world.until(90 * SECOND, "it knows", |world| !members(world, away).contains_key(&group));
    let fleet = world.fleet(away);
    world.run(async move {
        fleet.deactivate().await.expect("it was active");
        fleet.drained(60 * SECOND).await.expect("it is empty in time");
    });
    assert_eq!(world.run(read(world.fleet(away), name(0))), 10);
}
