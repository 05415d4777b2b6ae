//! No function outside of tests is longer than 70 lines.
//!
//! The rule relies on rustfmt: the brace that ends a function is alone in its line, as far to the
//! right as the function's first line.

use crate::Fault;
use crate::tree::{Language, Tree, language};

const LINES: usize = 70;

/// The words that may precede `fn`.
const QUALIFIERS: [&str; 6] = ["pub", "const", "async", "unsafe", "extern", "default"];

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in tree.files() {
        if language(path, text) != Language::Rust || is_of_tests(path) {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins_function(line)) {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[at..].iter().position(|line| *line == end).map_or(1, |n| n + 1);
            if length > LINES && !is_one_line(line) {
                faults.push(Fault::new(path, at + 1, format!("a function of {length} lines")));
            }
        }
    }
    faults
}

fn is_of_tests(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "examples"))
}

fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let first = words.find(|word| {
        let is_abi = word.starts_with('"');
        !is_abi && !QUALIFIERS.iter().any(|qualifier| word.starts_with(qualifier))
    });
    first == Some("fn")
}

/// Whether a function ends in the line in which it begins.
fn is_one_line(line: &str) -> bool {
    line.ends_with(';') || line.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::faults;
    use crate::found;

    #[test]
    fn a_long_function_is_found() {
        let body = |lines: usize| "    a();\n".repeat(lines);
        let long = format!("pub(super) unsafe extern \"C\" fn b() {{\n{}}}\n", body(69));
        let fits = format!("    fn c() {{\n{}    }}\n", body(68));
        let code = format!("fn one() {{}}\n{fits}{long}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let tree = [("src/a.rs", &*code), ("src/tests.rs", &*long), ("b.c", &*long)];
        assert_eq!(found(faults, &tree), [("src/a.rs".into(), 72)]);
    }
}
