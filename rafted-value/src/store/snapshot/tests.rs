//! Snapshots on a simulated disk.
