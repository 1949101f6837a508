//! What runs on a node as long as it is part of a cluster.

mod cleaner;
mod founder;
mod orphans;
mod presence;
mod purger;
mod refresher;
mod reporter;

use std::sync::Arc;

use crate::adjust::Performer;
use crate::core::Core;

pub(crate) use self::refresher::find_contacts;

/// Starts what a node does that is listed.
pub(crate) fn start_duties(core: &Arc<Core>) {
    core.run("fleet founder", Box::pin(founder::run(Arc::clone(core))));
    core.run("fleet adjuster", Box::pin(Performer::new(core).run()));
    core.run("fleet cleaner", Box::pin(cleaner::run(Arc::clone(core))));
    core.run("fleet purger", Box::pin(purger::run(Arc::clone(core))));
    core.run("fleet contacts", Box::pin(crate::contacts::keep(Arc::clone(core))));
    core.run("fleet presence", Box::pin(presence::run(Arc::clone(core))));
    core.run("fleet reporter", Box::pin(reporter::run(Arc::clone(core))));
}

/// Starts the task that nodes and clients have in common.
pub(crate) fn start_refresher(core: &Arc<Core>) {
    core.run("fleet view", Box::pin(refresher::run(Arc::clone(core))));
}
