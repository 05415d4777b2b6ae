//! The tree is tidy: everything that comments and pages name exists, lines and functions are short,
//! and no file is left over.
//!
//! The rules read only the text of the files, so this also works in a source archive and without a
//! network. Each module has one rule. Its unit tests plant a fault in a small tree, and show that
//! the rule finds it.

mod commands;
mod dead;
mod headings;
mod identifiers;
mod length;
mod papers;
mod paths;
mod text;
mod tree;
mod width;

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;
use tree::Tree;

/// A breach of a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    path: String,
    /// Line number, counted from 1; 0 for the whole file.
    line: usize,
    what: String,
}

impl Fault {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Fault {
        Fault { path: path.into(), line, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn obeys(rule: fn(&Tree) -> Vec<Fault>) {
    static TREE: OnceLock<Tree> = OnceLock::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let faults = rule(TREE.get_or_init(|| Tree::read(root).unwrap()));
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), lines.join("\n"));
}

#[test]
fn paths_that_are_named_exist() {
    obeys(paths::faults);
}

#[test]
fn headings_and_links_lead_somewhere() {
    obeys(headings::faults);
}

#[test]
fn identifiers_in_pages_are_in_the_code() {
    obeys(identifiers::faults);
}

#[test]
fn commands_that_are_named_can_be_given() {
    obeys(commands::faults);
}

#[test]
fn lines_are_short() {
    obeys(width::faults);
}

#[test]
fn functions_are_short() {
    obeys(length::faults);
}

#[test]
fn no_file_is_left_over() {
    obeys(dead::faults);
}

#[test]
fn no_paper_outside_the_tree_is_referred_to() {
    obeys(papers::faults);
}

/// The line numbers of a rule's faults in a tree with these files, each with its path.
#[cfg(test)]
fn found(rule: fn(&Tree) -> Vec<Fault>, files: &[(&str, &str)]) -> Vec<(String, usize)> {
    let mut faults = rule(&Tree::of(files));
    faults.sort();
    faults.into_iter().map(|fault| (fault.path, fault.line)).collect()
}
