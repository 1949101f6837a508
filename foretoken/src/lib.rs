#![doc = include_str!("../README.md")]

mod alarm;
mod bucket;
mod clock;
mod config;
mod error;
mod foretoken;
mod limits;
mod line;
mod monotonic;
mod peek;
mod rate;
mod shard;
mod sweep;
mod take;
mod take_all;
#[cfg(feature = "tokio")]
mod tokio_clock;
mod wait;

pub use clock::{Clock, ManualClock, Sleep};
pub use config::Config;
pub use error::{RateError, TakeAllError, TakeError};
pub use foretoken::Foretoken;
pub use monotonic::MonotonicClock;
pub use peek::Peek;
pub use rate::Rate;
pub use take::Take;
#[cfg(feature = "tokio")]
pub use tokio_clock::TokioClock;
