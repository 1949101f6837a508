//! A node on its own, and what it keeps.

use std::time::Duration;

use dist_agent::{
    Agent, AgentContext, AgentTypes, DistAgent, QueryContext, QuotaLimit, Rate, SingleNode, StartError,
};
use serde::{Deserialize, Serialize};

/// A number.
#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

impl Agent for Counter {
    const TYPE: &'static str = "counter";
    type Command = i64;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, add: i64) -> i64 {
        self.0 += add;
        self.0
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> i64 {
        self.0
    }
}

fn types() -> AgentTypes {
    AgentTypes::new().with::<Counter>()
}

#[tokio::test]
async fn agents_and_quotas_are_there_again_when_the_program_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    for life in 1..4 {
        let cluster = SingleNode::new(types()).directory(directory.path()).start().await.unwrap();
        if life == 1 {
            cluster.put_quota("tenant-a", 1).await.unwrap();
        }
        let counter = cluster.agent::<Counter>("tenant-a", "room-42").unwrap();
        assert_eq!(counter.command(2).await, Ok(2 * life));
        assert_eq!(cluster.quota_usage("tenant-a").await.unwrap().limit, QuotaLimit::Agents(1));
        assert!(cluster.agent::<Counter>("tenant-a", "other").unwrap().command(1).await.is_err());
        cluster.shutdown().await;
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_an_error_value() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let error = SingleNode::new(types()).directory(&file).start().await.unwrap_err();
    assert!(matches!(error, StartError::Storage { .. }), "{error}");
}

/// Two writers in one directory would be two members that vote as one.
#[tokio::test]
async fn a_directory_that_is_in_use_is_an_error_value_and_its_user_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let start = || SingleNode::new(types()).directory(directory.path()).start();
    let first = start().await.unwrap();
    first.put_quota("tenant-a", QuotaLimit::Unlimited).await.unwrap();
    let counter = first.agent::<Counter>("tenant-a", "room-42").unwrap();
    assert_eq!(counter.command(1).await, Ok(1));
    let error = start().await.unwrap_err();
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    assert_eq!(counter.command(1).await, Ok(2));
    first.shutdown().await;
    let next = start().await.unwrap();
    assert_eq!(next.agent::<Counter>("tenant-a", "room-42").unwrap().command(1).await, Ok(3));
    next.shutdown().await;
}

/// Whatever lies in the directory, a start comes to an end: with an error, or with everything that was acknowledged.
#[tokio::test]
async fn a_file_that_was_damaged_is_an_error_value_or_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let start = || SingleNode::new(types()).directory(directory.path()).start();
    let first = start().await.unwrap();
    first.put_quota("tenant-a", QuotaLimit::Unlimited).await.unwrap();
    for n in 0..50 {
        let counter = first.agent::<Counter>("tenant-a", &n.to_string()).unwrap();
        assert_eq!(counter.command(7).await, Ok(7));
    }
    first.shutdown().await;
    let files = files_in(directory.path());
    assert!(!files.is_empty());
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        for byte in damaged.iter_mut().skip(middle).take(16) {
            *byte ^= 0xff;
        }
        if damaged.is_empty() {
            continue;
        }
        std::fs::write(&file, damaged).unwrap();
        match start().await {
            Ok(node) => {
                for n in 0..50 {
                    let counter = node.agent::<Counter>("tenant-a", &n.to_string()).unwrap();
                    assert_eq!(counter.query(()).await, Ok(7), "{}", file.display());
                }
                node.shutdown().await;
            }
            Err(error) => assert!(error.to_string().contains("checksum"), "{}: {error}", file.display()),
        }
        std::fs::write(&file, whole).unwrap();
    }
}

fn files_in(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}

/// A build that does not fit is refused, and the one that fits finds everything as it was.
#[tokio::test]
async fn a_start_that_is_refused_leaves_the_directory_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let first = SingleNode::new(types()).directory(directory.path()).start().await.unwrap();
    first.put_quota("tenant-a", QuotaLimit::Unlimited).await.unwrap();
    assert_eq!(first.agent::<Counter>("tenant-a", "room-42").unwrap().command(1).await, Ok(1));
    first.shutdown().await;
    let none = SingleNode::new(AgentTypes::new()).directory(directory.path()).start().await;
    assert!(matches!(none, Err(StartError::Build(_))), "{none:?}");
    let next = SingleNode::new(types()).directory(directory.path()).start().await.unwrap();
    assert_eq!(next.agent::<Counter>("tenant-a", "room-42").unwrap().command(1).await, Ok(2));
    next.shutdown().await;
}

/// No time is too long to be added to another.
#[tokio::test]
async fn times_without_end_work() {
    let forever = Duration::MAX;
    let start = SingleNode::new(types()).config(|config| {
        (config.quota_interval, config.versions_interval, config.watch_interval) =
            (forever, forever, forever);
        (config.ready_timeout, config.kv.creation_timeout) = (forever, forever);
        (config.call.timeout, config.call.retry_interval) = (forever, forever);
        (config.quota_lease_places, config.quota_lease_share) = (u32::MAX, u32::MAX);
        (config.rate_limits_max, config.answers_max) = (usize::MAX, usize::MAX);
        config.tick_interval = Duration::from_millis(u64::from(u32::MAX));
    });
    let node = start.start().await.unwrap();
    node.put_quota("tenant-a", u64::MAX).await.unwrap();
    let counter = node.agent::<Counter>("tenant-a", "room-42").unwrap().timeout(forever).retries(u32::MAX);
    assert_eq!(counter.command(1).await, Ok(1));
    assert_eq!(counter.idempotency_key("").command(1).await, Ok(2));
    assert_eq!(counter.idempotency_key("").command(1).await, Ok(2));
    for n in 0..20 {
        let new = node.agent::<Counter>("tenant-a", &n.to_string()).unwrap();
        assert_eq!(new.command(1).await, Ok(1));
    }
    assert_eq!(counter.stale_ok(forever).query(()).await, Ok(2));
    let limited = counter.rate_limit(Rate::per_second(1_000).unwrap(), u32::MAX);
    assert_eq!(limited.command(1).await, Ok(3));
    node.shutdown().await;
}

#[tokio::test]
async fn two_nodes_of_one_program_know_nothing_of_each_other() {
    let first = DistAgent::single_node(types()).await.unwrap();
    let second = DistAgent::single_node(types()).await.unwrap();
    first.put_quota("tenant-a", QuotaLimit::Unlimited).await.unwrap();
    assert!(second.quota_usage("tenant-a").await.is_err());
    first.shutdown().await;
    second.shutdown().await;
}

/// An agent type without a name.
#[derive(Default, Serialize, Deserialize)]
struct Nameless;

impl Agent for Nameless {
    const TYPE: &'static str = "";
    type Command = ();
    type Reply = ();
    type Query = ();
    type Answer = ();

    fn handle_command(&mut self, _: &mut AgentContext<'_>, (): ()) {}

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) {}
}

#[tokio::test]
async fn a_type_whose_name_cannot_be_is_refused_when_the_node_starts() {
    let error = DistAgent::single_node(AgentTypes::new().with::<Nameless>()).await.unwrap_err();
    assert_eq!(error.to_string(), "the agent type is empty");
}
