//! stub
pub(crate) struct Performer;
