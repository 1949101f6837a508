//! The seeds that the code writes itself: one of each thing that is said, asked, answered or written down.
//!
//! `DIST_AGENT_REWRITE=1 cargo nextest run -p dist-agent the_seeds_are` writes them, after a format has got something new at
//! its end. What a fuzzer has found lies beside them.

use std::path::PathBuf;

use raft_kv::rafted_value::encode;

use super::agents::{Order, STATES, in_state, run};
use super::ledgers::{commands, name, queries, told_some};
use super::*;
use crate::agent_id::{AgentKey, AgentTypeName};
use crate::on_tick::OnTick;
use crate::quota::QuotaLimit;
use crate::wire::{AgentCommand, AgentQuery, join_value};
use raft_kv::rafted_value::{CommandContext, Data};

/// A seed: its target, its name and its bytes.
type Seed = (&'static str, String, Vec<u8>);

pub(super) fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

const STATE_NAMES: [&str; STATES as usize] =
    ["none", "live", "passive", "earlier", "unreadable", "waiting", "ending"];

/// What agents in each state are told, asked, and are in bytes.
fn of_agents() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let orders = [
        ("keep", Order::Keep),
        ("set", Order::Set(77)),
        ("timeout", Order::Wait(OnTick::Timeout { ticks: 2 })),
        ("deactivate", Order::Wait(OnTick::Deactivate { ticks: 2 })),
        ("sleep", Order::Sleep),
        ("end", Order::End),
    ];
    let if_active = AgentCommand::RunIfActive { tick_ms: 100, version: 1, call: 300 };
    let asked = [
        ("user", join_value(&AgentQuery::User, &true).expect("it serialises")),
        ("changes", join(&AgentQuery::Changes { life: 0, revision: 0 }, &[])),
        ("other_life", join(&AgentQuery::Changes { life: 3, revision: 0 }, &[])),
        ("compacted", join(&AgentQuery::Changes { life: 7, revision: 0 }, &[])),
        ("is_active", join(&AgentQuery::IsActive, &[])),
    ];
    for (state, named) in (0..).zip(STATE_NAMES) {
        let behind = |payload: &[u8]| [&[state], payload].concat();
        for (order_name, order) in orders {
            seeds.push(("command", format!("{named}_{order_name}"), behind(&run(1, order))));
        }
        seeds.push(("command", format!("{named}_earlier"), behind(&run(0, Order::Set(5)))));
        let careful = join_value(&if_active, &Order::Set(5)).expect("it serialises");
        seeds.push(("command", format!("{named}_if_active"), behind(&careful)));
        for (query_name, query) in &asked {
            seeds.push(("query", format!("{named}_{query_name}"), behind(query)));
        }
        if state > 0 {
            seeds.push(("agent", named.to_owned(), in_state(state)));
        }
    }
    seeds
}

/// What a ledger is told and asked, what it says to that, and what it has come to.
fn of_ledgers() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let context = CommandContext { now_ms: 20, index: 1, seed: 1 };
    for (before, (named, command)) in commands().into_iter().enumerate() {
        let behind = [&[before as u8][..], &encode(&command)].concat();
        seeds.push(("ledger", named.to_owned(), behind));
        let mut ledger = told_some(before);
        let reply = ledger.command(&context, command);
        seeds.push(("told", format!("reply_{named}"), encode(&reply).to_vec()));
        seeds.push(("stored", named.to_owned(), encode(&ledger).to_vec()));
    }
    for (named, query) in queries() {
        let behind = [&[12][..], &encode(&query)].concat();
        seeds.push(("ledger", format!("ask_{named}"), behind));
        seeds.push(("told", format!("answer_{named}"), encode(&told_some(12).query(query)).to_vec()));
    }
    seeds
}

/// Every seed that the code writes.
fn all() -> Vec<Seed> {
    let mut seeds = [of_agents(), of_ledgers()].concat();
    let id = AgentId {
        quota: name("tenant-a"),
        agent_type: AgentTypeName::new("counter").expect("a name"),
        key: AgentKey::new("room\0of-42").expect("a key"),
    };
    let change = |revision, command| KeptChange { revision, at_ms: 300, command };
    let usage = QuotaUsage { agents: 3, limit: QuotaLimit::Agents(300) };
    let answer = join(&AgentAnswer::Changes { life: 7 }, &encode(&vec![change(3, None)]));
    let said = [
        ("user", join(&AgentReply::User, b"x").to_vec()),
        ("activated", join(&AgentReply::Activated { at_ms: 300 }, b"x").to_vec()),
        ("not_active_for", join(&AgentReply::NotActiveFor { call: 300 }, b"").to_vec()),
        ("unreadable", join(&AgentAnswer::UnreadableState, b"why").to_vec()),
        ("compacted", join(&AgentAnswer::Compacted { oldest: 300 }, b"").to_vec()),
        ("changed", answer.to_vec()),
        ("changes", encode(&vec![change(1, Some(vec![7])), change(2, None)]).to_vec()),
        ("watch", encode(&WatchPosition::after_revision(300)).to_vec()),
        ("list", encode(&AgentPosition::default()).to_vec()),
        ("usage", encode(&usage).to_vec()),
        ("identity", encode(&id).to_vec()),
        ("key", id.store_key().as_bytes().to_vec()),
    ];
    seeds.extend(said.into_iter().map(|(name, bytes)| ("told", name.to_owned(), bytes)));
    seeds
}

/// A new command, query or state has a seed as soon as it is named above, and none is out of date.
#[test]
fn the_seeds_are_what_the_code_writes() {
    let rewrite = std::env::var_os("DIST_AGENT_REWRITE").is_some();
    for (target, name, bytes) in all() {
        let file = folder(target).join(&name);
        if rewrite {
            std::fs::create_dir_all(folder(target)).expect("the repository may be written");
            std::fs::write(&file, &bytes).expect("the repository may be written");
        }
        let there = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(there, bytes, "{target}/{name} is out of date: DIST_AGENT_REWRITE=1 writes it anew");
    }
}
