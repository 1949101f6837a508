//! A replicated store of texts: three nodes in one process.
//!
//! `cargo run -p raft-kv --example store`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;

use bytes::Bytes;
use raft_kv::raft_fleet::{CallOptions, FleetConfig};
use raft_kv::rafted_value::env::{RealEnv, random_u64_from_os};
use raft_kv::rafted_value::transport::memory::MemoryNetwork;
use raft_kv::rafted_value::{CommandContext, Freshness, NodeId, Refused, encode};
use raft_kv::{
    Answer, Done, Key, KeyspaceName, KeyspacePolicy, Kv, KvConfig, KvQueryError, KvTypes, ValuePerKey,
};
use serde::{Deserialize, Serialize};

/// Values are texts.
struct Texts;

/// What changes a text; the reply is the text as it was before.
#[derive(Serialize, Deserialize)]
enum TextCommand {
    Set(String),
    Append(String),
    Remove,
}

impl ValuePerKey for Texts {
    type Value = String;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<String>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        let command = postcard::from_bytes(command).map_err(|error| Refused(error.to_string()))?;
        let reply = encode(&value);
        match command {
            TextCommand::Set(text) => *value = Some(text),
            TextCommand::Append(text) => value.get_or_insert_default().push_str(&text),
            TextCommand::Remove => *value = None,
        }
        Ok(Done { reply, load: 1, size: value.as_ref().map_or(0, String::len) as u64 })
    }

    fn query(&self, _: &[u8], value: &String, _: &Bytes) -> Result<Answer, Refused> {
        Ok(Answer { answer: Bytes::copy_from_slice(value.as_bytes()), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &String, out: &mut Vec<u8>) {
        out.extend_from_slice(value.as_bytes());
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<String, String> {
        String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let network = MemoryNetwork::new();
    let names = ["node-1", "node-2", "node-3"];
    let fleet = FleetConfig {
        seeds: names.map(|name| format!("memory:{name}")).into(),
        bootstrap_expect: names.len(),
        ..FleetConfig::default()
    };
    let starts = names.map(|name| {
        let env = RealEnv::new(network.join(NodeId(random_u64_from_os().max(1)), name));
        Kv::start(env, fleet.clone(), KvConfig::default(), KvTypes::new().with("text", Texts))
    });
    let nodes = futures_util::future::try_join_all(starts).await?;
    println!("three nodes form a cluster");

    let notes = KeyspaceName::new("notes")?;
    nodes[0].register_keyspace(&notes, &KeyspacePolicy { shards: 4, ..KeyspacePolicy::of("text") }).await?;
    println!("the keyspace {notes} has 4 shards of 3 members");

    let key = Key::new("groceries")?;
    let options = CallOptions::default();
    for command in [TextCommand::Set("milk".into()), TextCommand::Append(", bread".into())] {
        let before = nodes[1].command(&notes, &key, &encode(&command), &options).await?;
        println!("written through node-2; before: {:?}", postcard::from_bytes::<Option<String>>(&before)?);
    }
    let text = nodes[2].query(&notes, &key, Freshness::Latest, &[], &options).await?;
    println!("read through node-3: {:?}", String::from_utf8_lossy(&text));

    nodes[0].command(&notes, &key, &encode(&TextCommand::Remove), &options).await?;
    match nodes[2].query(&notes, &key, Freshness::Latest, &[], &options).await {
        Err(KvQueryError::KeyNotFound) => println!("removed through node-1, and gone on node-3"),
        other => return Err(format!("the key is still there: {other:?}").into()),
    }
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}
