//! The programs of the README are what is built and run.

use std::path::Path;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("it is there")
}

/// The blocks of code of the README that begin with this line.
fn blocks<'a>(readme: &'a str, begin: &str) -> Vec<&'a str> {
    let block = |text: &'a str| text.split("\n```\n").next().expect("a split has a first part");
    readme.split(begin).skip(1).map(block).collect()
}

/// What of a program is not a `use`: those of two programs are joined in one.
fn body(program: &str) -> &str {
    let start = program.find("\n/// A certificate").or_else(|| program.find("\ntype Outcome"));
    &program[start.expect("it has one of the two")..]
}

#[test]
fn the_programs_of_the_readme_are_those_of_the_example() {
    let (readme, example) = (file("README.md"), file("examples/words.rs"));
    let [alone] = blocks(&readme, "```rust\n")[..] else {
        panic!("there is one program that runs in the text")
    };
    let [processes] = blocks(&readme, "```rust,ignore\n")[..] else { panic!("and one that does not") };
    let value = body(alone).split("\n#[tokio::main]").next().expect("a split has a first part");
    assert!(example.contains(value), "the value and its client");
    assert!(example.contains(body(processes)), "the three processes");
    for line in alone.lines().chain(processes.lines()).filter(|line| line.starts_with("use ")) {
        let joined = line.contains("MemoryNetwork") || example.contains(line);
        assert!(joined, "{line}");
    }
}
