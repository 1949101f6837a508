#![doc = include_str!("../README.md")]

mod bucket;
mod clock;
mod config;
mod error;
mod foretoken;
mod rate;
mod shard;
mod sweep;
mod take;

pub use clock::{Clock, ManualClock, MonotonicClock};
pub use config::Config;
pub use error::{RateError, TakeError};
pub use foretoken::Foretoken;
pub use rate::Rate;
pub use take::Take;
