//! How many entries a second the log takes, beside a file that gets the same bytes with no log around them.
//!
//! `cargo run --release -p rafted-value --example log_bench -- [seconds a run] [directory]`
//!
//! Both are measured in turns within one run, since a disk's speed changes from minute to minute: the ratio counts.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures on a real clock"
)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rafted_value::LogBench;

const ENTRY_BYTES: usize = 100;
const GROUPS: u64 = 64;
const BATCHES: [usize; 3] = [1, 64, 512];
/// How often the two take turns.
const TURNS: u32 = 4;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = folder.join(format!("log-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let measured = measure(&directory, Duration::from_secs_f64(seconds) / TURNS).await;
    std::fs::remove_dir_all(&directory)?;
    measured
}

async fn measure(directory: &Path, turn: Duration) -> Outcome<()> {
    println!("{ENTRY_BYTES}-byte entries to {GROUPS} groups, each batch made durable");
    println!("{:>6} {:>14} {:>14} {:>7}", "batch", "log entries/s", "bare entries/s", "ratio");
    for batch in BATCHES {
        let mut log = LogBench::open(directory.join(format!("log-{batch}")), GROUPS).await?;
        let mut bare = File::create(directory.join(format!("bare-{batch}")))?;
        let payloads: Vec<Bytes> = vec![Bytes::from(vec![7; ENTRY_BYTES]); batch];
        let bytes = vec![7; ENTRY_BYTES * batch];
        let (mut of_log, mut of_bare) = (0.0, 0.0);
        for _ in 0..TURNS {
            let (start, mut batches) = (Instant::now(), 0);
            while start.elapsed() < turn {
                log.write(&payloads).await?;
                batches += 1;
            }
            of_log += rate(batches, start.elapsed());
            let (start, mut batches) = (Instant::now(), 0);
            while start.elapsed() < turn {
                bare.write_all(&bytes)?;
                bare.sync_data()?;
                batches += 1;
            }
            of_bare += rate(batches, start.elapsed());
        }
        let entries = |rate: f64| rate * batch as f64 / f64::from(TURNS);
        let (log, bare) = (entries(of_log), entries(of_bare));
        println!("{batch:>6} {log:>14.0} {bare:>14.0} {:>7.2}", log / bare);
    }
    Ok(())
}

fn rate(batches: u32, time: Duration) -> f64 {
    f64::from(batches) / time.as_secs_f64()
}
