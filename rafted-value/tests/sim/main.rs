//! Groups in simulated worlds: one program, because linking one costs more than most of these tests.

mod directories;
mod divergence;
mod durable;
mod faults;
mod features;
mod group;
mod hooks;
mod join;
mod leadership;
mod limits;
mod lost_learners;
mod membership;
mod outage;
mod quiet;
mod repair;
mod restore;
mod settings;
mod shown;
mod shutdown;
mod snapshot_files;
mod snapshot_stream;
mod spreading;
mod status;
#[path = "../support/mod.rs"]
mod support;
