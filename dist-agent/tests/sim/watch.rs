//! Watches: every change once, in order, across the death of nodes; or a clear word about the gap.

use std::time::Duration;

use dist_agent::{Agent, AgentContext, AgentHandle, Cause, QueryContext, WatchError, WatchPosition};
use serde::{Deserialize, Serialize};

use crate::agents::{Count, Counter, Sleep};
use crate::cluster::{Cluster, NODES, SECOND, TICK};

#[test]
fn a_watch_gives_every_change_once_in_order_though_nodes_die() {
    for seed in 111..114 {
        let mut cluster = Cluster::new(seed);
        let sleeper = cluster.sleeper("watched");
        let first = sleeper.clone();
        cluster.run(async move { first.command(Sleep::Timeouts(3)).await.unwrap() });
        let mut watch = sleeper.watch(WatchPosition::after_revision(0));
        let watched = cluster.spawn(async move {
            let mut changes = Vec::new();
            while changes.len() < 14 {
                match watch.next().await {
                    Ok(change) => changes.push(change),
                    Err(WatchError::Query(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            changes
        });
        let mut rng = cluster.sim.rng();
        cluster.sim.run_for(rng.duration(Duration::ZERO, 3 * TICK));
        let victim = rng.below(NODES as u64) as usize;
        cluster.kill(victim);
        let asked = sleeper.clone();
        cluster.run(async move {
            for _ in 0..10 {
                asked.command(Sleep::Keep).await.unwrap();
            }
        });
        cluster.restart(victim);
        let changes = cluster.wait(watched).expect("the client lives");
        let revisions: Vec<_> = changes.iter().map(|change| change.revision).collect();
        assert_eq!(revisions, (1..=14).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(changes[0].cause, Cause::Command(Sleep::Timeouts(3)));
        assert_eq!(changes.iter().filter(|change| change.cause == Cause::Timeout).count(), 3);
        assert!(changes.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms), "seed {seed}");
    }
}

#[test]
fn a_watch_that_falls_behind_is_told_so_and_one_that_resumes_in_time_misses_nothing() {
    let cluster = Cluster::new(114);
    let sleeper = cluster.sleeper("watched");
    cluster.run(async move {
        let mut watch = sleeper.watch(WatchPosition::default());
        let error = watch.next().await.unwrap_err();
        assert_eq!(error, WatchError::NotActive(sleeper.id().clone()));
        assert!(error.to_string().ends_with(" is not active"), "{error}");
        for _ in 0..6 {
            sleeper.command(Sleep::Keep).await.unwrap();
        }
        for revision in 1..=4 {
            assert_eq!(watch.next().await.unwrap().revision, revision);
        }
        // Another client goes on where this one was.
        let bytes = postcard::to_stdvec(&watch.position()).unwrap();
        let position: WatchPosition = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(position.revision(), 4);
        assert_eq!(sleeper.watch(position).next().await.unwrap().revision, 5);
        for _ in 0..20 {
            sleeper.command(Sleep::Keep).await.unwrap();
        }
        let error = sleeper.watch(position).next().await.unwrap_err();
        let agent = sleeper.id().clone();
        assert_eq!(error, WatchError::Compacted { agent, revision: 4, oldest: 11 });
        assert_eq!(sleeper.watch(WatchPosition::after_revision(10)).next().await.unwrap().revision, 11);
    });
}

/// An agent that began anew counts from one again; that must not look like a gap that is none.
#[test]
fn a_watch_does_not_take_another_life_of_the_agent_for_its_own() {
    let cluster = Cluster::new(115);
    let sleeper = cluster.sleeper("watched");
    let first = sleeper.clone();
    let mut watch = cluster.run(async move {
        first.command(Sleep::EndAfter(0)).await.unwrap();
        let mut watch = first.watch(WatchPosition::default());
        assert_eq!(watch.next().await.unwrap().revision, 1);
        watch
    });
    cluster.sim.run_for(SECOND + 2 * TICK);
    cluster.run(async move {
        for _ in 0..3 {
            sleeper.command(Sleep::Keep).await.unwrap();
        }
        assert!(matches!(watch.next().await, Err(WatchError::Ended(_))));
    });
}

/// The sleeper as a program has it that does not know one of its commands.
#[derive(Default, Serialize, Deserialize)]
struct OtherSleeper;

#[derive(PartialEq, Debug, Serialize, Deserialize)]
enum OtherSleep {
    Timeouts(u32),
    EndAfter(u32),
}

impl Agent for OtherSleeper {
    const TYPE: &'static str = "sleeper";
    const CHANGES_RETAINED: u32 = 16;
    type Command = OtherSleep;
    type Reply = u64;
    type Query = ();
    type Answer = ();

    fn handle_command(&mut self, _: &mut AgentContext<'_>, _: OtherSleep) -> u64 {
        0
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) {}
}

/// A watch once stood before a command that its program did not know, and said so without end.
#[test]
fn a_watch_goes_on_behind_a_change_that_it_cannot_read() {
    let cluster = Cluster::new(116);
    let sleeper = cluster.sleeper("watched");
    let other: AgentHandle<OtherSleeper> =
        cluster.client.agent("tenant-a", "watched").expect("a valid identity");
    cluster.run(async move {
        for sleep in [Sleep::EndAfter(100), Sleep::Keep, Sleep::EndAfter(101)] {
            sleeper.command(sleep).await.unwrap();
        }
        let mut watch = other.watch(WatchPosition::default());
        assert_eq!(watch.next().await.unwrap().cause, Cause::Command(OtherSleep::EndAfter(100)));
        assert!(matches!(watch.next().await, Err(WatchError::Unreadable { revision: 2, .. })));
        assert_eq!(watch.position().revision(), 2);
        assert_eq!(watch.next().await.unwrap().cause, Cause::Command(OtherSleep::EndAfter(101)));
    });
}

/// Such a watch once waited for ever, or was told of a gap as if it had come too late.
#[test]
fn whoever_watches_a_type_that_keeps_no_changes_is_told_so_at_once() {
    let cluster = Cluster::new(117);
    let counter: AgentHandle<Counter> =
        cluster.client.agent("tenant-a", "counted").expect("a valid identity");
    cluster.run(async move {
        let mut watch = counter.watch(WatchPosition::default());
        for _ in 0..2 {
            let error = watch.next().await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "agent type \"counter\" keeps no changes: its CHANGES_RETAINED is 0"
            );
            counter.command(Count::Add(1)).await.unwrap();
        }
    });
}

/// The changes are kept with the agent: when it ends they are gone, its end and what nobody had fetched yet included.
#[test]
fn the_changes_that_were_not_fetched_end_with_the_agent() {
    let cluster = Cluster::new(118);
    let sleeper = cluster.sleeper("watched");
    let first = sleeper.clone();
    let mut watch = cluster.run(async move {
        first.command(Sleep::Keep).await.unwrap();
        let mut watch = first.watch(WatchPosition::default());
        assert_eq!(watch.next().await.unwrap().revision, 1);
        first.command(Sleep::EndAfter(0)).await.unwrap();
        watch
    });
    cluster.sim.run_for(SECOND + 2 * TICK);
    cluster.run(async move {
        let error = watch.next().await.unwrap_err();
        assert_eq!(error, WatchError::Ended(sleeper.id().clone()), "revision 2 is not given");
        assert!(error.to_string().ends_with(" has ended"), "{error}");
        // Not even a new life is taken for what went before.
        sleeper.command(Sleep::Keep).await.unwrap();
        assert_eq!(watch.next().await.unwrap_err(), WatchError::Ended(sleeper.id().clone()));
        let again = sleeper.watch(WatchPosition::default()).next().await.unwrap();
        assert_eq!((again.revision, again.cause), (1, Cause::Command(Sleep::Keep)));
    });
}
