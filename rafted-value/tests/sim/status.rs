//! What members say of themselves.

use crate::support::{GROUP, MS, SECOND, World};
use futures_util::future::{join, join_all};
use rafted_value::{Freshness, GroupStatus, QueryError, Role, encode};

#[test]
fn a_leader_says_how_long_its_lease_lasts_and_who_is_silent() {
    let mut world = World::with_group(1, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let silent = (leader + 1) % 3;
    let status = world.status(leader);
    let left = status.lease_left_ms.expect("it has a lease");
    assert!((100..=180).contains(&left), "{left} of a promise of 200 ms less the margin");
    assert!(status.unresponsive.is_empty());
    assert_eq!(status.promise_left_ms, 0);
    let follower = world.status(silent);
    assert_eq!((follower.role, follower.lease_left_ms), (Role::Follower, None));
    assert!((100..=200).contains(&follower.promise_left_ms), "{follower:?}");
    let node = world.nodes[silent].id();
    world.kill(silent);
    world.sim.run_for(3 * SECOND);
    assert_eq!(world.status(leader).unresponsive, [node]);
}

#[test]
fn a_leader_says_to_whom_its_leadership_is_on_its_way() {
    let world = World::with_group(2, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let slow = (leader + 1) % 3;
    let member = world.member_on(leader, slow);
    world.sim.pause(&world.nodes[slow].env);
    let moving = world.replace_leader_to(leader, member);
    world.sim.run_for(10 * MS);
    let status = world.status(leader);
    assert_eq!((status.transfer_to, status.lease_left_ms, status.leased), (member, None, false));
    drop(moving);
}

#[test]
fn a_status_travels() {
    let world = World::with_group(3, 3);
    let status = world.status(world.leader());
    let bytes = rafted_value::encode(&status);
    assert_eq!(postcard::from_bytes::<GroupStatus>(&bytes), Ok(status));
}

/// A status was `None` where the inbox was full, as if there were no member: whoever looks after a node saw its groups
/// vanish whenever it had much to do.
#[test]
fn an_overloaded_node_says_of_its_members_what_it_has_to_say() {
    let mut world = World::empty(4);
    world.host_config.inbox_max = 8;
    world.start_node();
    world.found_on_all();
    let host = world.nodes[0].host.clone();
    let asked = world.sim.spawn(async move {
        let mut questions = Vec::new();
        for _ in 0..100 {
            questions.push(host.status(GROUP));
        }
        let one = host.query(GROUP, Freshness::Latest, encode(&()), SECOND);
        let (told, refused) = join(join_all(questions), one).await;
        (told.into_iter().flatten().count(), refused)
    });
    let (told, refused) = world.end(asked);
    assert_eq!(told, 100, "each question waits for its turn");
    assert!(
        matches!(refused, Err(QueryError::Overloaded { .. })),
        "a client is refused at once: {refused:?}"
    );
}
