//! No member ever fails: nothing that the simulation does is a reason to.

use super::Sighting;

/// # Errors
///
/// When the member is fenced.
pub(super) fn nothing_fenced(sighting: &Sighting) -> Result<(), String> {
    match &sighting.status.fenced {
        None => Ok(()),
        Some(reason) => {
            Err(format!("group {} is fenced on {}: {reason}", sighting.status.group, sighting.node))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sighting;
    use super::*;

    #[test]
    fn a_fenced_member_is_found() {
        let mut member = sighting(1, 1);
        nothing_fenced(&member).unwrap();
        member.status.fenced = Some("it panicked".into());
        nothing_fenced(&member).unwrap_err();
    }
}
