//! A small service under three limits: clients that are refused politely, a tenant over its agents, and a worker that
//! waits for its turn. Run it with `cargo run -p foretoken --example service`.

use std::error::Error;
use std::time::Duration;

use foretoken::{Foretoken, Rate, Take, TakeAllError, TakeError};

/// Whose bucket it is. One table of buckets serves all kinds of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Client(String),
    Tenant(&'static str),
    Agent(&'static str, u32),
    Upstream,
}

/// An answer as of an HTTP server.
#[derive(Debug, PartialEq)]
enum Response {
    Ok,
    TooManyRequests { retry_after: Duration },
    BadRequest(String),
}

/// Twenty requests a second for each client, four at once; uploads count as three.
fn handle(buckets: &Foretoken<Key>, client: &str, upload: bool) -> Result<Response, Box<dyn Error>> {
    let take = Take::new(Rate::per_second(20)?, 4).tokens(if upload { 3 } else { 1 });
    Ok(match buckets.take_with(&Key::Client(client.to_owned()), take) {
        Ok(()) => Response::Ok,
        Err(TakeError::NotEnoughTokens { wait }) => Response::TooManyRequests { retry_after: wait },
        Err(other) => Response::BadRequest(other.to_string()),
    })
}

/// A command to an agent counts for the agent and for its tenant, or for neither.
fn command(buckets: &Foretoken<Key>, tenant: &'static str, agent: u32) -> Result<String, Box<dyn Error>> {
    let of_tenant = Take::new(Rate::per_second(10)?, 5);
    let of_agent = Take::new(Rate::per_second(2)?, 2);
    let taken =
        buckets.take_all(&[(&Key::Tenant(tenant), of_tenant), (&Key::Agent(tenant, agent), of_agent)]);
    Ok(match taken {
        Ok(()) => "done".to_owned(),
        Err(TakeAllError::Refused { key, error, .. }) => format!("refused by {key:?}: {error}"),
        Err(other) => other.to_string(),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let buckets = Foretoken::new();
    for request in 1..=6 {
        say(&format!("request {request} of alice: {:?}", handle(&buckets, "alice", false)?));
        say(&format!("upload {request} of bob: {:?}", handle(&buckets, "bob", true)?));
    }
    for agent in [1, 1, 1, 2, 2, 3, 4] {
        say(&format!("command to agent {agent} of acme: {}", command(&buckets, "acme", agent)?));
    }
    // Three workers share an upstream that stands one call every 50 ms: first come, first served.
    let slowly = Take::new(Rate::one_per(Duration::from_millis(50))?, 1);
    let work = async |worker: u32| {
        for call in 1..=3 {
            match buckets.take_or_wait_for(&Key::Upstream, slowly, Duration::from_secs(1)).await {
                Ok(()) => say(&format!("worker {worker} makes call {call}")),
                Err(refused) => say(&format!("worker {worker} gives up call {call}: {refused}")),
            }
        }
    };
    tokio::join!(work(1), work(2), work(3));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "an example talks to the terminal")]
fn say(line: &str) {
    println!("{line}");
}
