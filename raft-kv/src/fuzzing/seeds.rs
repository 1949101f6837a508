//! The seeds that the code writes itself: one of each thing that is said, asked, answered or written down.
//!
//! `RAFT_KV_REWRITE=1 cargo nextest run -p raft-kv the_seeds_are` writes them, after a format has got something new at its end.
//! What a fuzzer has found lies beside them.

use std::path::PathBuf;

use super::*;
use crate::keyspace::SplitMergePolicy;
use crate::keyspaces::MoveReport;
use crate::shard::{
    AllCommand, Cover, FinalHead, RecordsAsk, ShardAnswer, ShardQuery, ShardReply, split_answer, split_reply,
};

/// A seed: its target, its name and its bytes.
type Seed = (&'static str, String, Vec<u8>);

pub(super) fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

/// What a shard in each state may be told, with its state.
fn commands() -> Vec<(&'static str, u8, Bytes)> {
    let high = KeyRange::part(1, 2);
    let (value_size_max, step) = (10, STEP);
    let records = RecordsAsk { since_ms: 0, after: None, bytes_max: 1 << 10 };
    let all = AllCommand { id: 5, until_ms: 90_000, range: KeyRange::ALL, keys_max: 3 };
    let (slots, rest) = (slots_of_the_range(), rest_of_the_range());
    let command = |key: &'static [u8]| ShardCommand::Command { key };
    let install = |cover, last| ShardCommand::Install { step, cover, last };
    let sweep = ShardCommand::Sweep { prefix: b"k", after: b"k2", keys_max: 3 };
    vec![
        ("initialise", 0, ShardCommand::Initialise { range: KeyRange::ALL, value_size_max }.encode(&[])),
        ("set", 1, command(b"k3").encode(&[77])),
        ("remove", 1, command(b"k3").encode(&[])),
        ("set_while_copied", 2, command(b"k4").encode(&[5])),
        ("elsewhere", 3, command(b"k1").encode(&[5])),
        ("all", 1, ShardCommand::CommandAll(all).encode(&[7])),
        ("all_while_copied", 2, ShardCommand::CommandAll(all).encode(&[])),
        ("send", 1, ShardCommand::Send { step, range: high, to: 5 }.encode(&[])),
        ("receive", 0, ShardCommand::Receive { step, range: high, value_size_max }.encode(&[])),
        ("give_up", 2, ShardCommand::GiveUp { step, ask: wire::final_ask(1 << 10) }.encode(&[])),
        ("give_up_again", 3, ShardCommand::GiveUp { step, ask: wire::final_ask(1 << 10) }.encode(&[])),
        ("install_range", 4, install(Cover::Range(high), false).encode(&slots)),
        ("install_last", 4, install(Cover::Changes { to: 1 }, true).encode(&rest)),
        ("install_records", 4, install(Cover::Records { until_ms: Some(7) }, false).encode(&rest)),
        ("finish", 3, ShardCommand::Finish { step }.encode(&[])),
        ("abort_sender", 2, ShardCommand::Abort { step }.encode(&[])),
        ("abort_receiver", 4, ShardCommand::Abort { step }.encode(&[])),
        ("forget", 1, ShardCommand::Forget { slots_max: 3 }.encode(&[])),
        ("wake", 1, ShardCommand::Wake { keys_max: 3 }.encode(&[])),
        ("tally", 1, ShardCommand::Tally.encode(&[])),
        ("sweep", 1, sweep.encode(b"x")),
        ("records", 2, ShardCommand::Records { step, ask: records }.encode(&[])),
    ]
}

/// What a shard in each state may be asked.
fn queries() -> Vec<(&'static str, u8, Bytes)> {
    let (high, move_id, bytes_max) = (KeyRange::part(1, 2), STEP.move_id, 1 << 10);
    let chunk = ShardQuery::Chunk { move_id, from: high.first(), bytes_max };
    let changes = ShardQuery::Changes { move_id, after: 0, bytes_max };
    vec![
        ("query", 1, ShardQuery::Query { key: b"k3" }.encode(b"q")),
        ("key_not_found", 1, ShardQuery::Query { key: b"no" }.encode(b"q")),
        ("elsewhere", 4, ShardQuery::Query { key: b"k1" }.encode(b"q")),
        ("status", 2, ShardQuery::Status.encode(&[])),
        ("chunk", 2, chunk.encode(&[])),
        ("changes", 2, changes.encode(&[])),
        ("no_such_move", 1, changes.encode(&[])),
        ("keys", 1, ShardQuery::Keys { range: KeyRange::ALL, prefix: b"k", keys_max: 3 }.encode(&[])),
        ("many", 1, ShardQuery::Many { keys: vec![b"k3", b"no"] }.encode(b"q")),
        ("weights", 1, ShardQuery::Weights.encode(&[])),
        ("next_wake", 1, ShardQuery::NextWake.encode(&[])),
        ("tally", 1, ShardQuery::Tally.encode(&[])),
    ]
}

/// The slots of a range as they go to another shard, behind a head.
fn slots_of_the_range() -> Bytes {
    let (move_id, from) = (STEP.move_id, KeyRange::part(1, 2).first());
    let query = ShardQuery::Chunk { move_id, from, bytes_max: 1 << 10 };
    let answer = Member::new(2).shard.query(&query.encode(&[])).expect("it sends");
    match split_answer(&answer).expect("it decodes") {
        (ShardAnswer::Chunk { .. }, slots) => FinalHead::default().encode(&slots),
        (other, _) => panic!("{other:?}"),
    }
}

/// What goes with a range that is given up.
fn rest_of_the_range() -> Bytes {
    let give_up = ShardCommand::GiveUp { step: STEP, ask: wire::final_ask(1 << 10) };
    let reply = Member::new(2).run(give_up.encode(&[])).expect("it sends");
    match split_reply(&reply).expect("it decodes") {
        (ShardReply::GivenUp { .. }, rest) => rest,
        (other, _) => panic!("{other:?}"),
    }
}

fn list_commands() -> Vec<(&'static str, KeyspacesCommand)> {
    let name = || KeyspaceName::new("n").expect("a short name");
    let policy = KeyspacePolicy { shards: 3, ..KeyspacePolicy::of("numbers") };
    let thresholds = SplitMergePolicy { max_keys: Some(9), ..SplitMergePolicy::default() };
    let (generation, moves_max) = (1, 4);
    let at = KeyRange::part(1, 2).first() + 9;
    let report = |report| KeyspacesCommand::Report { id: 1, epoch: 1, report };
    vec![
        ("register", KeyspacesCommand::Register { name: KeyspaceName::new("m").expect("short"), policy }),
        ("mark_ready", KeyspacesCommand::MarkReady { name: name(), generation }),
        ("set_policy", KeyspacesCommand::SetPolicy { name: name(), policy: thresholds }),
        ("split", KeyspacesCommand::Split { name: name(), generation, shard: 1, at, moves_max }),
        ("merge", KeyspacesCommand::Merge { name: name(), generation, from: 0, to: 1, moves_max }),
        (
            "claim",
            KeyspacesCommand::Claim {
                node: raft_fleet::rafted_value::NodeId(7),
                gone: Some(raft_fleet::rafted_value::NodeId(8)),
                lease_ms: 2000,
            },
        ),
        ("at_work", report(MoveReport::AtWork { lease_ms: 300 })),
        ("moved", report(MoveReport::Moved)),
        ("abort", report(MoveReport::Abort("why".into()))),
        ("ended", report(MoveReport::Ended)),
        ("deregister", KeyspacesCommand::Deregister { name: name() }),
        (
            "resume",
            KeyspacesCommand::Resume {
                id: 1,
                epoch: 1,
                node: raft_fleet::rafted_value::NodeId(7),
                lease_ms: 2000,
            },
        ),
        ("deregister_this", KeyspacesCommand::DeregisterThis { name: name(), generation }),
    ]
}

/// The list after each command, and its replies.
fn lists() -> Vec<Seed> {
    let mut list = Keyspaces::default();
    let name = KeyspaceName::new("n").expect("a short name");
    let policy = KeyspacePolicy { shards: 2, ..KeyspacePolicy::of("numbers") };
    let context = CommandContext { now_ms: 5, index: 1, seed: 1 };
    list.command(&context, KeyspacesCommand::Register { name, policy });
    let mut seeds = Vec::new();
    for (named, command) in list_commands() {
        let reply = list.command(&context, command);
        seeds.push(("listed", format!("reply_{named}"), encode(&reply).to_vec()));
        seeds.push(("listed", format!("list_{named}"), encode(&list).to_vec()));
        let answer = list.query(KeyspacesQuery::List);
        seeds.push(("listed", format!("answer_{named}"), encode(&answer).to_vec()));
    }
    seeds
}

/// What values of bytes and nodes say to each other; the bytes are those of the tests that hold their formats.
const BYTES: [(&str, &[u8]); 7] = [
    ("set", &[0, 1, b'v']),
    ("remove", &[1]),
    ("compare_and_set", &[2, 1, 1, b'e', 0]),
    ("done", &[0, 1]),
    ("mismatch", &[1, 1, 1, b'e']),
    ("leaders", &[0]),
    ("leaders_reply", &[0, 1, 9, 0, 1, 2, 3, 4, 0, 0, 5, 0]),
];

/// Every seed that the code writes.
fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let behind = |state: u8, payload: &Bytes| [&[state], &payload[..]].concat();
    for (name, state, payload) in commands() {
        let reply = Member::new(state).run(payload.clone()).expect("seeds are taken").to_vec();
        seeds.push(("command", name.to_owned(), behind(state, &payload)));
        seeds.push(("reply", format!("to_{name}"), reply));
    }
    for (name, state, payload) in queries() {
        let answer = Member::new(state).shard.query(&payload).expect("seeds are answered").to_vec();
        seeds.push(("query", name.to_owned(), behind(state, &payload)));
        seeds.push(("reply", format!("answer_{name}"), answer));
    }
    seeds.push(("reply", "slots".into(), slots_of_the_range().to_vec()));
    seeds.push(("reply", "rest".into(), rest_of_the_range().to_vec()));
    let states = ["empty", "serving", "sending", "given_up", "receiving"];
    seeds.extend(
        (0..).zip(states).map(|(state, name)| ("snapshot", name.to_owned(), Member::new(state).written())),
    );
    let of_list = list_commands().into_iter();
    seeds.extend(of_list.map(|(name, command)| ("list", name.to_owned(), encode(&command).to_vec())));
    let name = KeyspaceName::new("n").expect("a short name");
    let page = KeyspacesQuery::Page { after: Some(name.clone()) };
    let asked = [KeyspacesQuery::List, KeyspacesQuery::Get { name }, KeyspacesQuery::Moves, page];
    let asked = asked.into_iter().zip(["ask_list", "ask_one", "ask_moves", "ask_page"]);
    seeds.extend(asked.map(|(query, name)| ("list", name.to_owned(), encode(&query).to_vec())));
    seeds.extend(lists());
    let page = Keyspaces::default().query(KeyspacesQuery::Page { after: None });
    seeds.push(("listed", "page".into(), encode(&page).to_vec()));
    seeds.extend(BYTES.into_iter().map(|(name, bytes)| ("bytes", name.to_owned(), bytes.to_vec())));
    seeds
}

/// A new command, query or state has a seed as soon as it is named above, and none is out of date.
#[test]
fn the_seeds_are_what_the_code_writes() {
    let rewrite = std::env::var_os("RAFT_KV_REWRITE").is_some();
    for (target, name, bytes) in all() {
        let file = folder(target).join(&name);
        if rewrite {
            std::fs::create_dir_all(folder(target)).expect("the repository may be written");
            std::fs::write(&file, &bytes).expect("the repository may be written");
        }
        let there = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(there, bytes, "{target}/{name} is out of date: RAFT_KV_REWRITE=1 writes it anew");
    }
}
