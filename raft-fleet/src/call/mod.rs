//! Commands and queries to groups by name: whom to ask, and when to ask again.

mod attempts;
mod chase;
mod gate;
mod line;
mod window;

pub use self::attempts::BegunCommand;
pub(crate) use self::attempts::{Target, as_ms};
pub(crate) use self::gate::Gate;
pub(crate) use self::line::Lines;
