//! No lease overlaps a newer leader: while a member may answer alone, nobody leads a later term.

use std::collections::BTreeMap;

use rafted_value::MemberId;

use super::Clocks;
use super::chronicle::Known;

/// Looks at all members of a group at one instant.
///
/// # Errors
///
/// Who holds a lease beside which leader.
pub(super) fn no_lease_beside_a_newer_leader(
    members: &BTreeMap<MemberId, Known>,
    clocks: &Clocks,
) -> Result<(), String> {
    let standings = || members.iter().filter_map(|(member, known)| Some((member, known.standing.as_ref()?)));
    let leaders = || standings().filter(|(_, standing)| standing.leads);
    for (holder, old) in leaders() {
        let Some(end) = old.lease_end else { continue };
        for (leader, new) in leaders() {
            if new.term > old.term && clocks.is_before(old.node, end) {
                return Err(format!(
                    "{holder} holds a lease in term {} while {leader} leads term {}",
                    old.term, new.term
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rafted_value::env::Env;
    use rafted_value::sim::{NetConfig, Sim, Standing};

    use super::super::chronicle::standing;
    use super::*;

    #[test]
    fn a_lease_beside_a_newer_leader_is_found() {
        let sim = Sim::new(1, NetConfig::default());
        let env = sim.start_node("node", "sim:1");
        let lease_end = Some(env.now() + Duration::from_millis(100));
        let mut clocks = Clocks::default();
        clocks.0.insert(env.node(), env.clone());
        let old = Standing { node: env.node(), leads: true, lease_end, ..standing(1) };
        let new = Standing { leads: true, term: 2, ..standing(2) };
        let known = |standing| Known { standing: Some(standing), ..Known::default() };
        let mut members = BTreeMap::from([(MemberId(1), known(old))]);
        no_lease_beside_a_newer_leader(&members, &clocks).unwrap();
        members.insert(MemberId(2), known(new));
        assert!(no_lease_beside_a_newer_leader(&members, &clocks).unwrap_err().contains("holds a lease"));
        sim.run_for(Duration::from_millis(101));
        no_lease_beside_a_newer_leader(&members, &clocks).unwrap();
    }
}
