//! A rolling upgrade with deaths in the middle: nothing that was acknowledged is ever lost from view, whichever build leads.

use std::sync::Arc;
use std::time::Duration;

use dist_agent::raft_kv::rafted_value::Role;
use dist_agent::raft_kv::rafted_value::env::{Env, sleep};
use dist_agent::raft_kv::rafted_value::sim::SimTask;
use dist_agent::testing::{Cluster, ClusterOptions};
use dist_agent::{
    Agent, AgentContext, AgentError, AgentHandle, AgentNotApplied, AgentQueryError, AgentTypes, QueryContext,
    WatchPosition,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cluster::SECOND;

/// A number, as it was.
#[derive(Default, Serialize, Deserialize)]
struct Old {
    total: u64,
}

/// The same number in another form.
#[derive(Default, Serialize, Deserialize)]
struct New {
    tens: u64,
    ones: u8,
}

/// A build that forgot the way back.
#[derive(Default, Serialize, Deserialize)]
struct NoWayBack(New);

/// What changes it.
#[derive(Serialize, Deserialize)]
enum Change {
    Add(u64),
    /// New in the next build.
    Double,
}

/// A type that is new in the next build.
#[derive(Default, Serialize, Deserialize)]
struct Note(String);

impl Agent for Old {
    const TYPE: &'static str = "number";
    type Command = Change;
    type Reply = u64;
    type Query = ();
    type Answer = (u64, u32);

    fn handle_command(&mut self, _: &mut AgentContext<'_>, change: Change) -> u64 {
        match change {
            Change::Add(amount) => self.total += amount,
            Change::Double => panic!("this build has no such command"),
        }
        self.total
    }

    fn handle_query(&self, context: &QueryContext<'_>, (): ()) -> (u64, u32) {
        (self.total, context.version())
    }
}

impl New {
    fn of(total: u64) -> Self {
        Self { tens: total / 10, ones: (total % 10) as u8 }
    }

    fn total(&self) -> u64 {
        self.tens * 10 + u64::from(self.ones)
    }
}

impl Agent for New {
    const TYPE: &'static str = "number";
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    type Command = Change;
    type Reply = u64;
    type Query = ();
    type Answer = (u64, u32);

    fn handle_command(&mut self, _: &mut AgentContext<'_>, change: Change) -> u64 {
        *self = match change {
            Change::Add(amount) => Self::of(self.total() + amount),
            Change::Double => Self::of(self.total() * 2),
        };
        self.total()
    }

    fn handle_query(&self, context: &QueryContext<'_>, (): ()) -> (u64, u32) {
        (self.total(), context.version())
    }

    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        assert_eq!(from, 0);
        let Old { total } = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self::of(total))
    }

    fn write_as(&self, version: u32) -> Result<Vec<u8>, String> {
        assert_eq!(version, 0);
        postcard::to_stdvec(&Old { total: self.total() }).map_err(|error| error.to_string())
    }

    fn version_needed(change: &Change) -> u32 {
        match change {
            Change::Add(_) => 0,
            Change::Double => 1,
        }
    }
}

impl Agent for NoWayBack {
    const TYPE: &'static str = "number";
    const VERSION: u32 = 1;
    type Command = Change;
    type Reply = u64;
    type Query = ();
    type Answer = (u64, u32);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, change: Change) -> u64 {
        self.0.handle_command(context, change)
    }

    fn handle_query(&self, context: &QueryContext<'_>, (): ()) -> (u64, u32) {
        self.0.handle_query(context, ())
    }

    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        New::migrate(from, bytes).map(Self)
    }
}

impl Agent for Note {
    const TYPE: &'static str = "note";
    type Command = String;
    type Reply = ();
    type Query = ();
    type Answer = String;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, text: String) {
        self.0 = text;
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> String {
        self.0.clone()
    }
}

fn old_build() -> AgentTypes {
    AgentTypes::new().with::<Old>()
}

fn new_build() -> AgentTypes {
    AgentTypes::new().with::<New>().with::<Note>()
}

const AGENTS: usize = 8;
const NODES: usize = 3;
/// Between two commands of one agent.
const PACE: Duration = Duration::from_millis(300);
/// Long enough for the fleet to take a dead node's members out and fill its next life.
const WHOLE: Duration = Duration::from_secs(15);

/// What the client was told of one agent.
#[derive(Clone, Copy, Default, Debug)]
struct Told {
    acknowledged: u64,
    unknown: u64,
}

struct World {
    cluster: Cluster,
    seed: u64,
    numbers: Vec<AgentHandle<New>>,
    told: Arc<Mutex<Vec<Told>>>,
    load: Vec<SimTask<()>>,
    is_over: Arc<Mutex<bool>>,
    activated: usize,
}

/// Adds one again and again, until it is over.
async fn add(
    env: Arc<dyn Env>,
    number: AgentHandle<New>,
    agent: usize,
    told: Arc<Mutex<Vec<Told>>>,
    is_over: Arc<Mutex<bool>>,
) {
    while !*is_over.lock() {
        match number.command(Change::Add(1)).await {
            Ok(_) => told.lock()[agent].acknowledged += 1,
            Err(AgentError::Unknown(_)) => told.lock()[agent].unknown += 1,
            Err(AgentError::NotApplied(_)) => {}
        }
        sleep(env.as_ref(), PACE).await;
    }
}

impl World {
    /// A cluster of the first build under load; members are compared with each other all the time.
    fn new(seed: u64) -> Self {
        let mut options = ClusterOptions::new(seed);
        options.config.fleet.host.divergence_check_commands = 5;
        let cluster = Cluster::with(options, old_build());
        let numbers: Vec<_> =
            (0..AGENTS).map(|n| cluster.agent::<New>("tenant-a", &format!("{n}"))).collect();
        let told = Arc::new(Mutex::new(vec![Told::default(); AGENTS]));
        let is_over = Arc::new(Mutex::new(false));
        let mut load = Vec::new();
        for (agent, number) in numbers.iter().enumerate() {
            let env = cluster.client().fleet().env().clone();
            load.push(cluster.spawn(add(env, number.clone(), agent, told.clone(), is_over.clone())));
        }
        Self { cluster, seed, numbers, told, load, is_over, activated: 0 }
    }

    /// Everything that was acknowledged is there, and no member has ended; the version as which the first agent runs.
    fn check(&self) -> u32 {
        let before = self.told.lock().clone();
        let numbers = self.numbers.clone();
        let found = self.cluster.run(async move {
            let mut found = Vec::new();
            for number in &numbers {
                found.push(match number.query(()).await {
                    // It has had no command yet.
                    Err(AgentQueryError::AgentNotFound(_)) => (0, 0),
                    answer => answer.expect("a majority lives"),
                });
            }
            found
        });
        let after = self.told.lock().clone();
        for (agent, (total, _)) in found.iter().enumerate() {
            // One more may have been applied and not told.
            let most = after[agent].acknowledged + after[agent].unknown + 1;
            let least = before[agent].acknowledged;
            assert!(
                (least..=most).contains(total),
                "seed {}: agent {agent} is {total}, not {least} to {most}",
                self.seed
            );
        }
        for node in (0..NODES).filter(|node| self.cluster.node(*node).is_some()) {
            let fenced = self.cluster.run_on(node, |node| async move {
                let members = node.fleet().host().expect("it is a node").statuses().await;
                members.into_iter().find_map(|member| member.fenced)
            });
            assert_eq!(fenced, None, "seed {}: node {node}", self.seed);
        }
        found[0].1
    }

    /// Lets a new agent have its first command, so that versions meet at activations too.
    fn activate(&mut self) {
        self.activated += 1;
        let number = self.cluster.agent::<New>("tenant-a", &format!("activated-{}", self.activated));
        let total = self.cluster.run(async move { number.command(Change::Add(3)).await });
        assert_eq!(total, Ok(3), "seed {}", self.seed);
    }

    /// A node dies, and another build comes in its place.
    fn replace(&mut self, node: usize, types: &AgentTypes) {
        self.cluster.kill(node);
        self.check();
        let dead = self.cluster.rng().duration(Duration::ZERO, 3 * SECOND);
        self.cluster.run_for(dead);
        self.cluster.restart_as(node, types).expect("it fits");
        self.activate();
        self.cluster.run_for(WHOLE);
        self.check();
    }

    /// What only the next build can do.
    fn news(&self) -> (Result<u64, AgentError>, Result<(), AgentError>) {
        let number = self.cluster.agent::<New>("tenant-a", "doubled");
        let note = self.cluster.agent::<Note>("tenant-a", "note");
        self.cluster.run(async move {
            (number.command(Change::Double).await, note.command("written".to_owned()).await)
        })
    }

    fn end(mut self) {
        *self.is_over.lock() = true;
        for load in std::mem::take(&mut self.load) {
            self.cluster.finish(load);
        }
        let told = self.told.lock().clone();
        let numbers = self.numbers.clone();
        let totals = self.cluster.run(async move {
            let mut totals = Vec::new();
            for number in &numbers {
                totals.push(number.query(()).await.expect("all is well").0);
            }
            totals
        });
        for (agent, (Told { acknowledged, unknown }, total)) in told.iter().zip(totals).enumerate() {
            assert!(*acknowledged > 100, "seed {}: agent {agent}, {acknowledged}", self.seed);
            assert!((*acknowledged..=acknowledged + unknown).contains(&total), "seed {}: {total}", self.seed);
        }
    }
}

/// Every death leaves members of both builds; now one leads, now the other, and each gets snapshots of the other.
#[test]
fn nothing_is_lost_in_an_upgrade_in_which_nodes_of_both_builds_die_and_lead() {
    for seed in 500..502 {
        let mut world = World::new(seed);
        world.cluster.run_for(2 * SECOND);
        assert_eq!(world.check(), 0);
        let (old, new) = (old_build(), new_build());
        let first = world.cluster.rng().below(NODES as u64) as usize;
        let [second, third] = [(first + 1) % NODES, (first + 2) % NODES];
        // Two are old, and one of them dies: what it gets back comes from the new one or from the old.
        world.replace(first, &new);
        world.replace(second, &old);
        // Two are new: an old member leads whatever the dead one led, or gets its state from a new one.
        world.replace(second, &new);
        world.replace(first, &new);
        world.replace(third, &old);
        // Back again, all the way.
        world.replace(second, &old);
        world.replace(second, &new);
        assert_eq!(world.check(), 0, "seed {seed}");
        let (double, note) = world.news();
        let upgrading = matches!(
            double,
            Err(AgentError::NotApplied(AgentNotApplied::Upgrading { needed: 1, agreed: 0, .. }))
        );
        assert!(upgrading, "seed {seed}: {double:?}");
        let unknown = matches!(note, Err(AgentError::NotApplied(AgentNotApplied::UnknownAgentType(_))));
        assert!(unknown, "seed {seed}: {note:?}");

        world.replace(third, &new);
        assert_eq!(world.check(), 1, "seed {seed}");
        assert_eq!(world.news(), (Ok(0), Ok(())), "seed {seed}");

        // An old node that comes late is refused, and nothing is lost by it.
        world.cluster.kill(first);
        let refused = world.cluster.restart_as(first, &old).unwrap_err();
        assert!(refused.contains("this build cannot be part of the cluster"), "seed {seed}: {refused}");
        world.check();
        world.cluster.run_for(WHOLE);
        world.cluster.restart_as(first, &new).expect("it fits");
        world.cluster.run_for(WHOLE);
        world.replace(second, &new);
        world.replace(third, &new);
        assert_eq!(world.check(), 1, "seed {seed}");
        world.end();
    }
}

#[test]
fn a_build_that_cannot_go_on_as_the_others_do_is_refused_and_nothing_is_lost() {
    let mut world = World::new(510);
    world.cluster.run_for(20 * SECOND);
    world.cluster.kill(0);
    let refused = world.cluster.restart_as(0, &AgentTypes::new().with::<NoWayBack>()).unwrap_err();
    let why = "\"number\" as versions 1 to 1, and the cluster has agents of versions 0 to 0";
    assert!(refused.contains(why), "{refused}");
    world.check();
    let refused = world.cluster.restart_as(0, &AgentTypes::new().with::<Note>()).unwrap_err();
    assert!(refused.contains("does not know agent type \"number\""), "{refused}");
    world.check();
    world.cluster.restart(0);
    world.cluster.run_for(WHOLE);
    assert_eq!(world.check(), 0);
    world.end();
}

/// A dead node of the earlier build holds the upgrade up until the fleet gives it up, and no longer.
#[test]
fn a_dead_node_holds_the_upgrade_up_only_until_it_is_given_up() {
    let mut world = World::new(520);
    let new = new_build();
    for node in 0..2 {
        world.replace(node, &new);
    }
    world.cluster.kill(2);
    world.cluster.run_for(2 * SECOND);
    assert_eq!(world.check(), 0);
    world.cluster.run_for(40 * SECOND);
    assert_eq!(world.check(), 1);
    assert_eq!(world.news(), (Ok(0), Ok(())));
    world.end();
}

/// Callers whose command is new in this version came at once, right after the raise: one of them asked the ledger, and the
/// others were refused without a word of it, though no node of the earlier build was left.
#[test]
fn all_who_come_right_after_the_raise_are_served() {
    let mut options = ClusterOptions::new(931);
    // What the client knows of it, it hears for the sake of a call.
    options.config.versions_interval = 1_000 * SECOND;
    let mut cluster = Cluster::with(options, old_build());
    let number = cluster.agent::<New>("tenant-a", "one");
    let added = number.clone();
    assert_eq!(cluster.run(async move { added.command(Change::Add(1)).await }), Ok(1));
    for node in 0..NODES {
        cluster.kill(node);
        cluster.restart_as(node, &new_build()).expect("it fits");
        cluster.run_for(WHOLE);
    }
    // The first has no time for an answer, which is no reason for the others to have none.
    let impatient = number.timeout(Duration::from_micros(1));
    let told = cluster.run(async move {
        let all = futures_util::future::join_all((0..4).map(|_| number.command(Change::Double)));
        let (hasty, told) = futures_util::future::join(impatient.command(Change::Double), all).await;
        assert!(matches!(hasty, Err(AgentError::NotApplied(AgentNotApplied::NoVersion { .. }))), "{hasty:?}");
        told
    });
    let mut totals: Vec<u64> = told.into_iter().map(Result::unwrap).collect();
    totals.sort_unstable();
    assert_eq!(totals, [2, 4, 8, 16]);
}

/// The number as it was, but it can be watched.
#[derive(Default, Serialize, Deserialize)]
struct Watched(Old);

/// ... and says that it could not before.
#[derive(Default, Serialize, Deserialize)]
struct WatchedNext(Old);

macro_rules! watched {
    ($agent:ident, $version:expr, $($more:tt)*) => {
        impl Agent for $agent {
            const TYPE: &'static str = "number";
            const VERSION: u32 = $version;
            const VERSION_MIN: u32 = 0;
            const CHANGES_RETAINED: u32 = 8;
            type Command = Change;
            type Reply = u64;
            type Query = ();
            type Answer = (u64, u32);

            fn handle_command(&mut self, context: &mut AgentContext<'_>, change: Change) -> u64 {
                self.0.handle_command(context, change)
            }

            fn handle_query(&self, context: &QueryContext<'_>, (): ()) -> (u64, u32) {
                self.0.handle_query(context, ())
            }

            $($more)*
        }
    };
}

watched! { Watched, 0, }
watched! {
    WatchedNext, 1,

    fn migrate(_: u32, bytes: &[u8]) -> Result<Self, String> {
        postcard::from_bytes(bytes).map_err(|error| error.to_string())
    }

    fn write_as(&self, _: u32) -> Result<Vec<u8>, String> {
        postcard::to_stdvec(self).map_err(|error| error.to_string())
    }

    fn version_needed(_: &Change) -> u32 {
        0
    }

    fn changes_retained(version: u32) -> u32 {
        if version == 0 { 0 } else { Self::CHANGES_RETAINED }
    }
}

/// Changes are kept beside the state, by all members alike. A build that kept others than the build before it was once taken in,
/// and its members were found to differ.
#[test]
fn a_build_that_keeps_other_changes_is_refused_unless_it_says_since_when() {
    let mut options = ClusterOptions::new(932);
    options.config.fleet.host.divergence_check_commands = 5;
    let mut cluster = Cluster::with(options, AgentTypes::new().with::<Old>());
    let number = cluster.agent::<New>("tenant-a", "one");
    let add = |cluster: &Cluster| {
        let number = number.clone();
        cluster.run(async move {
            for _ in 0..20 {
                number.command(Change::Add(1)).await.unwrap();
            }
        });
    };
    add(&cluster);
    cluster.kill(0);
    let refused = cluster.restart_as(0, &AgentTypes::new().with::<Watched>());
    assert!(refused.as_ref().is_err_and(|why| why.contains("has another form")), "{refused:?}");
    for node in 0..NODES {
        cluster.kill(node);
        cluster.restart_as(node, &AgentTypes::new().with::<WatchedNext>()).expect("it fits");
        add(&cluster);
        cluster.run_for(WHOLE);
    }
    add(&cluster);
    // As a program has it that knows of the changes.
    let watched = cluster.agent::<WatchedNext>("tenant-a", "one");
    let (asked, mut watch) = (number.clone(), watched.watch(WatchPosition::after_revision(99)));
    assert_eq!(cluster.run(async move { asked.query(()).await }).map(|(total, _)| total), Ok(100));
    assert_eq!(cluster.run(async move { watch.next().await }).map(|change| change.revision), Ok(100));
    for node in 0..NODES {
        let fenced = cluster.run_on(node, |node| async move {
            let members = node.fleet().host().expect("it is a node").statuses().await;
            members.into_iter().find_map(|member| member.fenced)
        });
        assert_eq!(fenced, None, "node {node}");
    }
}

/// It was added to groups in the place of a lost one before it knew that it could not stay, and took the memory of their members
/// with it: a group that counted it as a voter had lost two of four (seed 784 of the stack).
#[test]
fn a_node_without_a_disk_that_is_refused_leaves_no_member_behind() {
    for seed in 530..536 {
        let options = ClusterOptions::new(seed);
        let mut cluster = Cluster::with(options, AgentTypes::new().with::<New>());
        let client = cluster.client().clone();
        cluster.run(async move { client.put_quota("tenant-a", 100).await.unwrap() });
        let number = cluster.agent::<New>("tenant-a", "n");
        let first = number.clone();
        assert_eq!(cluster.run(async move { first.command(Change::Add(1)).await }), Ok(1));
        let known: Vec<_> = (0..3).map(|node| cluster.node(node).unwrap().fleet().node()).collect();
        cluster.kill(0);
        let refused = cluster.restart_as(0, &AgentTypes::new().with::<Old>()).unwrap_err();
        assert!(refused.contains("this build cannot be part of the cluster"), "seed {seed}: {refused}");
        let statuses = [1, 2].map(|node| {
            let host = cluster.node(node).unwrap().fleet().host().unwrap().clone();
            cluster.run(async move { host.statuses().await })
        });
        for status in statuses.iter().flatten().filter(|status| status.role == Role::Leader) {
            let strange = status.members.iter().find(|member| !known.contains(&member.node));
            assert_eq!(strange, None, "seed {seed}: group {}", status.group);
        }
        assert_eq!(cluster.run(async move { number.command(Change::Add(1)).await }), Ok(2));
    }
}
