//! The whole stack over simulated nodes: agents down to the log, on one virtual clock, decided by one seed.

mod agents;
mod bad_input;
mod calls;
mod cluster;
mod disks;
mod encoding;
mod examples;
mod failover;
mod hooks;
mod leases;
mod ledger;
mod options;
mod quotas;
mod splits;
mod ticks;
mod unreadable;
mod upgrade;
mod watch;
mod witness;
