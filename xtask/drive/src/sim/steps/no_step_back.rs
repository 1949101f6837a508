//! Within one life of its node, a member's term, commit and applied index never go back, and its vote of a term stays.

use rafted_value::sim::Standing;

/// Compares where a member stood with where it stands.
///
/// # Errors
///
/// What went back, or is in no possible order.
pub(super) fn no_step_back(before: Option<&Standing>, now: &Standing) -> Result<(), String> {
    if now.applied > now.commit || now.commit > now.last {
        return Err(format!("stands in no possible order: {now:?}"));
    }
    let Some(before) = before else { return Ok(()) };
    let pairs = [
        ("term", before.term, now.term),
        ("commit index", before.commit, now.commit),
        ("applied index", before.applied, now.applied),
    ];
    for (name, before, now) in pairs {
        if now < before {
            return Err(format!("its {name} went back from {before} to {now}"));
        }
    }
    if before.term == now.term && before.vote.is_some() && before.vote != now.vote {
        return Err(format!(
            "changed its vote of term {} from {:?} to {:?}",
            now.term, before.vote, now.vote
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rafted_value::MemberId;

    use super::super::chronicle::standing;
    use super::*;

    #[test]
    fn what_goes_back_is_found() {
        let before = Standing { term: 3, commit: 5, applied: 4, last: 6, ..standing(1) };
        no_step_back(Some(&before), &before).unwrap();
        for wrong in [
            Standing { term: 2, ..before.clone() },
            Standing { commit: 4, ..before.clone() },
            Standing { applied: 3, ..before.clone() },
            Standing { applied: 6, ..before.clone() },
            Standing { last: 4, ..before.clone() },
        ] {
            no_step_back(Some(&before), &wrong).unwrap_err();
        }
    }

    #[test]
    fn another_vote_in_the_same_term_is_found() {
        let before = Standing { vote: Some(MemberId(1)), ..standing(1) };
        let now = Standing { vote: Some(MemberId(2)), ..standing(1) };
        no_step_back(Some(&before), &now).unwrap_err();
        no_step_back(Some(&before), &Standing { term: 2, ..now }).unwrap();
    }
}
