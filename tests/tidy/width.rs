//! No line of prose or code is longer than 100 columns.

use crate::Fault;
use crate::tree::{Language, Tree, language};

const COLUMNS: usize = 100;
const TAB: usize = 8;

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in tree.files() {
        let language = language(path, text);
        // Cargo's tables and the list of mutants are data.
        if language == Language::Other || path.ends_with(".toml") {
            continue;
        }
        let mut fenced = false;
        for (at, line) in text.lines().enumerate() {
            fenced ^= language == Language::Markdown && line.starts_with("```");
            let exempt = language == Language::Markdown && (fenced || is_no_prose(line));
            let width = columns(line);
            if width > COLUMNS && !exempt {
                faults.push(Fault::new(path, at + 1, format!("{width} columns")));
            }
        }
    }
    faults
}

/// Whether a line of a page belongs to a table or to code, or contains only a link or a picture.
fn is_no_prose(line: &str) -> bool {
    let words = line.split_whitespace().filter(|word| !word.starts_with('-')).count();
    line.starts_with('|') || line.starts_with("    ") || line.starts_with("![") || words == 1
}

fn columns(line: &str) -> usize {
    line.chars().fold(0, |at, c| if c == '\t' { (at / TAB + 1) * TAB } else { at + 1 })
}

#[cfg(test)]
mod tests {
    use super::faults;
    use crate::found;

    #[test]
    fn a_long_line_is_found() {
        let (fits, long) = ("é ".repeat(50), "é ".repeat(51));
        let rust = format!("// {}\n//{long}\n", &fits[..fits.len() - 9]);
        let page = format!("{fits}\n{long}\n| {long}\n    {long}\n```\n{long}\n```\n{long}\n");
        let make = format!("a:\n\t{}\n\t{}\n", "x".repeat(92), "x".repeat(93));
        let tree = [("a.rs", &*rust), ("b.md", &page), ("Makefile", &make), ("c.txt", &long)];
        let expected = [("Makefile", 3), ("a.rs", 2), ("b.md", 2), ("b.md", 8)];
        assert_eq!(found(faults, &tree), expected.map(|(path, line)| (path.into(), line)));
    }
}
