//! The end of a seed: all members hold the same value, and it explains everything that clients were told.

use std::collections::BTreeMap;

use rafted_value::{Freshness, GroupId, encode};

use super::lists::{Question, State};
use super::plan::ms;
use super::run::Run;
use crate::sim::history::{Key, check};

impl Run<'_> {
    /// Compares the members' values and checks the history against them.
    ///
    /// # Errors
    ///
    /// What differs, or what no order of the operations explains.
    pub(super) fn compare(&self) -> Result<(), String> {
        let mut lists: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
        for group in &self.plan.groups {
            let state = self.value_of(group.id)?;
            let ran = self.around.witness.ran(group.id);
            if state.ran != ran {
                return Err(format!("group {}: {ran} commands ran, {} are left", group.id, state.ran));
            }
            lists.extend(state.lists.into_iter().map(|(key, list)| ((group.id, key), list.numbers)));
        }
        let violations = check(&self.around.record.operations(), &lists);
        if violations.is_empty() { Ok(()) } else { Err(violations.join("\n")) }
    }

    /// The value that all members of a group hold.
    fn value_of(&self, group: u64) -> Result<State, String> {
        let mut first: Option<State> = None;
        let places: Vec<usize> = self.cluster.views(group).map(|(place, _)| place).collect();
        let members = self.cluster.leader(group).map_or(&[][..], |(_, leader)| &leader.status.members);
        for place in places {
            let Some(life) = &self.cluster.places[place].life else { continue };
            if members.iter().all(|member| member.node != life.env.node()) {
                continue;
            }
            let (host, question) = (life.host.clone(), encode(&Question::Everything));
            let answer = self.cluster.sim.run_until(ms(100), async move {
                host.query(GroupId(group), Freshness::Stale, question, ms(100)).await
            });
            let answer = answer.ok_or("no answer")?.map_err(|error| format!("group {group}: {error}"))?;
            let state: State = postcard::from_bytes(&answer).map_err(|error| error.to_string())?;
            match &first {
                None => first = Some(state),
                Some(first) if *first == state => {}
                Some(first) => {
                    return Err(format!("group {group}: members differ: {first:?} and {state:?}"));
                }
            }
        }
        first.ok_or(format!("group {group} has no member"))
    }
}
