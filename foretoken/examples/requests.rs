//! Requests of two tenants against one table of buckets: bursts pass, floods are told when to come back.

use std::error::Error;

use foretoken::{Foretoken, Rate, TakeError};

fn main() -> Result<(), Box<dyn Error>> {
    let buckets: Foretoken<String> = Foretoken::new();
    let rate = Rate::per_second(20)?;
    for request in 1..=8 {
        for tenant in ["alice", "bob"] {
            // Bob's requests are heavy: two tokens each.
            let tokens = if tenant == "bob" { 2 } else { 1 };
            let line = match buckets.take(&tenant.to_owned(), rate, 6, tokens) {
                Ok(()) => "served".to_owned(),
                Err(TakeError::NotEnoughTokens { wait }) => format!("too many requests, retry in {wait:.0?}"),
                Err(other) => return Err(other.into()),
            };
            say(&format!("request {request} of {tenant}: {line}"));
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "an example talks to the terminal")]
fn say(line: &str) {
    println!("{line}");
}
