//! Hooks over a whole cluster: whoever leads tells, whatever took effect is told, and nobody else tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use dist_agent::testing::Cluster;
use dist_agent::{Agent, AgentContext, AgentHooks, AgentTypes, HookContext, OnTick, QueryContext};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A number that goes up by commands, and by one at its timeout.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Number(u64);

impl Agent for Number {
    const TYPE: &'static str = "number";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, add: u64) -> u64 {
        assert!(add != 13, "it cannot bear 13");
        context.on_tick(OnTick::Timeout { ticks: 0 });
        self.0 += add;
        self.0
    }

    fn handle_timeout(&mut self, _: &mut AgentContext<'_>) {
        self.0 += 1;
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
        self.0
    }
}

/// What was told, by the value after it: the value before it, and how often it was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<u64, (Option<u64>, u32)>>>);

impl Told {
    fn note(&self, before: Option<&Number>, after: Option<&Number>) {
        let after = after.expect("it never ends").0;
        let before = before.map(|number| number.0);
        let mut told = self.0.lock();
        let entry = told.entry(after).or_insert((before, 0));
        assert_eq!(entry.0, before, "what is told twice is told alike");
        entry.1 += 1;
    }
}

impl AgentHooks<Number> for Told {
    fn after_command(
        &self,
        _: &HookContext<'_>,
        before: Option<&Number>,
        add: &u64,
        reply: &u64,
        after: Option<&Number>,
    ) {
        assert_eq!(before.map_or(0, |number| number.0) + add, *reply);
        self.note(before, after);
    }

    fn after_timeout(&self, _: &HookContext<'_>, before: &Number, after: Option<&Number>) {
        self.note(Some(before), after);
    }
}

#[test]
fn what_took_effect_is_told_by_whoever_leads_though_nodes_die() {
    for seed in 121..124 {
        let told = Told::default();
        let types = AgentTypes::new().with_hooks::<Number>(told.clone());
        let mut cluster = Cluster::new(seed, types);
        let number = cluster.agent::<Number>("tenant-a", "room-42");
        for round in 0..3 {
            let asked = number.clone();
            cluster.run(async move {
                for _ in 0..10 {
                    asked.command(2).await.unwrap();
                }
                asked.command(13).await.unwrap_err();
            });
            cluster.tick();
            let leader = cluster.leader_of(number.id()).expect("the shard is led");
            cluster.kill(leader);
            cluster.tick();
            cluster.restart(leader);
            cluster.run_for(std::time::Duration::from_secs(30));
            let asked = number.clone();
            let value = cluster.run(async move { asked.query(()).await.unwrap() });
            assert_eq!(value, (round + 1) * 21, "seed {seed}");
        }
        // From each value to the next there is one telling, or two of the same where the leader changed.
        let told = told.0.lock();
        let mut value = 63;
        loop {
            let Some(&(before, times)) = told.get(&value) else {
                panic!("seed {seed}: {value} was not told")
            };
            assert!((1..=2).contains(&times), "seed {seed}: {value} was told {times} times");
            match before {
                Some(before) => value = before,
                None => break,
            }
        }
        assert_eq!(value, 2);
        assert_eq!(told.len(), 33, "seed {seed}: nothing was told that did not happen");
    }
}
