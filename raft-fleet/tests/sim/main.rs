//! Fleets in simulated worlds: one program, because linking one costs more than most of these tests.

mod abuse;
mod balance;
mod calls;
mod cluster;
mod copies;
mod disks;
mod drain;
mod faults;
mod overload;
mod purge;
mod repair;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod waiting;
