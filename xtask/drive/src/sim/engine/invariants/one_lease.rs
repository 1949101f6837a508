//! At no instant do two members of a group hold a lease: one of them would answer with what the other has overwritten.

use std::collections::BTreeMap;

use super::Sighting;

/// Checks what all members said at one instant.
///
/// # Errors
///
/// When two of them hold a lease.
pub(super) fn one_lease<'a>(sightings: impl Iterator<Item = &'a Sighting>) -> Result<(), String> {
    let mut holders = BTreeMap::new();
    for sighting in sightings.filter(|sighting| sighting.status.leased) {
        let status = &sighting.status;
        if let Some(other) = holders.insert(status.group, status.member) {
            return Err(format!(
                "group {}: {other} and {} hold a lease at the same time",
                status.group, status.member
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sighting;
    use super::*;

    #[test]
    fn two_leases_at_one_instant_are_found() {
        let mut members = [sighting(1, 1), sighting(2, 2)];
        members[0].status.leased = true;
        one_lease(members.iter()).unwrap();
        members[1].status.leased = true;
        one_lease(members.iter()).unwrap_err();
    }
}
