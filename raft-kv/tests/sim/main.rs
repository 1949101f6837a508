//! The store over simulated nodes.

mod all_keys;
mod busy;
mod cluster;
mod edges;
mod keyspaces;
mod lost;
mod moves;
mod takeover;
mod values;
