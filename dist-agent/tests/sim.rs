//! The whole stack over simulated nodes.
