//! What cannot be an agent is pointed at in the user's source.

/// The errors of these programs are those of the attribute alone: it needs no `dist-agent` to find them, and they are built
/// in a moment.
#[test]
fn what_cannot_be_an_agent_is_pointed_at_in_the_users_source() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
