//! Brings the members of groups to where the cluster state wants them: a pure plan of one step, and a performer.

mod lost;
mod performer;
mod plan;

pub(crate) use self::performer::Performer;
pub(crate) use self::plan::serves;
pub use self::plan::{Step, plan};
