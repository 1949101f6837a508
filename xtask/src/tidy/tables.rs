//! The tables of what a crate offers and which tests hold it: a table that names a test which is no more proves nothing.

use std::collections::BTreeSet;

use super::Source;
use crate::workspace::CRATES;

/// Where a crate's table is, a row a line, and the tests in its second cell.
const TABLE: &str = "tests/features.md";

/// Crates whose table is missing or empty, and rows that name tests which are not there.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    CRATES.iter().flat_map(|name| check_crate(name, sources)).collect()
}

fn check_crate(name: &str, sources: &[Source]) -> Vec<String> {
    let own = format!("{name}/");
    let path = format!("{own}{TABLE}");
    let Some(table) = sources.iter().find(|source| source.path == path) else {
        return vec![format!("{path}:1: missing: each crate says which tests hold what it offers")];
    };
    let files = sources.iter().filter(|source| source.path.starts_with(&own) && source.path.ends_with(".rs"));
    let there: BTreeSet<&str> = files.flat_map(|source| tests_of(&source.text)).collect();
    let named: Vec<(usize, &str)> = named(&table.text).collect();
    if named.is_empty() {
        return vec![format!("{path}:1: its table names no test")];
    }
    let missing = named.iter().filter(|(_, test)| !there.contains(test));
    missing.map(|(line, test)| format!("{path}:{line}: {name} has no test {test}")).collect()
}

/// What stands between backquotes in the second cell of each row, with the number of its line.
fn named(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let rows = text.lines().enumerate().filter(|(_, line)| line.starts_with("|"));
    rows.filter_map(|(at, row)| Some((at + 1, row.split('|').nth(2)?)))
        .flat_map(|(line, cell)| cell.split('`').skip(1).step_by(2).map(move |test| (line, test)))
}

/// The names of the functions that follow a test's attribute.
fn tests_of(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let function = line.trim_start_matches("async ").strip_prefix("fn ");
        if let Some(name) = function.and_then(|rest| rest.split('(').next()).filter(|_| is_test) {
            names.push(name);
            is_test = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree in which each crate has this table and these tests.
    fn found(table: &str, tests: &str) -> Vec<String> {
        let files = |name: &&str| {
            [(TABLE, table), ("src/lib.rs", tests)]
                .map(|(path, text)| Source { path: format!("{name}/{path}"), text: text.to_owned() })
        };
        check(&CRATES.iter().flat_map(files).collect::<Vec<_>>())
    }

    #[test]
    fn a_table_may_name_any_test_of_its_crate() {
        let table = "| what | tests |\n|---|---|\n| `this` | `one`, `two` |\n";
        let tests = "#[test]\nfn one() {}\n\n    #[tokio::test(flavor = \"x\")]\n    async fn two() {}\n";
        assert_eq!(found(table, tests), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_is_no_more_is_named_with_its_line() {
        let tests = "#[test]\nfn one() {}\nfn two() {}\n";
        let found = found("What.\n| this | `one`, `two` |\n", tests);
        assert_eq!(found.len(), CRATES.len());
        assert!(found[0].contains(":2: ") && found[0].ends_with("has no test two"), "{found:?}");
    }

    #[test]
    fn a_crate_without_a_table_or_with_an_empty_one_is_named() {
        assert!(found("| this | that |\n", "").iter().all(|line| line.contains("names no test")));
        assert_eq!(check(&[]).len(), CRATES.len());
    }
}
