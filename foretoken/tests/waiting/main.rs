//! Waiting in line, takes of several buckets at once, and everything together against a dumb twin.

mod crowd;
mod sequences;
mod take_all;
mod twin;
mod wait;
