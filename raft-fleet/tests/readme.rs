//! What the README shows is what its example prints.

#[path = "../examples/three_nodes.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program, of which the test runs the story")]
mod three_nodes;

/// Text without its figures and ids: those change with every layer below.
fn without_figures(text: &str) -> String {
    let mut out = String::new();
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let figure = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).parse::<f64>().is_ok();
        let id = |word: &str| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            bare.len() > 10
                && bare.strip_prefix('n').is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()))
        };
        out.push_str(if figure(word) || id(word) { "#" } else { word });
        out.push(' ');
    }
    out
}

/// The block of the README that follows the example's command. `RAFT_FLEET_REWRITE=1` writes it anew.
#[test]
fn the_readme_shows_what_the_example_prints() {
    let said = three_nodes::story().expect("the walk goes well");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let command = "cargo run -p raft-fleet --example three_nodes --features sim";
    let (before, rest) = readme.split_once(command).expect("the README names the command");
    let (lead, rest) = rest.split_once("```text\n").expect("its output follows");
    let (shown, after) = rest.split_once("```").expect("the output ends");
    if std::env::var_os("RAFT_FLEET_REWRITE").is_some() {
        let fresh = format!("{before}{command}{lead}```text\n{said}```{after}");
        return std::fs::write(path, fresh).expect("the README can be written");
    }
    assert_eq!(without_figures(shown), without_figures(&said));
}
