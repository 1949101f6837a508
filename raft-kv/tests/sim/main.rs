//! The store over simulated nodes.

mod cluster;
mod keyspaces;
mod moves;
mod values;
