//! A command that a page or a comment recommends exists: make's targets, Cargo's packages and
//! tests, the lab's scenarios.

use crate::Fault;
use crate::text::code;
use crate::tree::{Language, Tree, language};
use regex_lite::Regex;
use std::collections::BTreeSet;

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let known = Known::of(tree);
    let quoted = Regex::new(r"`(?:[A-Z_]+=\S+ )*((?:make|cargo) [^`]+)").unwrap();
    let in_code = Regex::new(r"(?m)^    (?:[A-Z_]+=\S+ )*((?:make|cargo) .+)$").unwrap();
    let listed = Regex::new(r"(?m)^(make [a-z-]+(?: [A-Z_]+=\S*)*)(?:  |;|$)").unwrap();
    let mut faults = Vec::new();
    for passage in tree.passages() {
        let other = match passage.language {
            Language::Markdown => Some(&in_code),
            // The list of targets at the start of a Makefile.
            Language::Hash => Some(&listed),
            _ => None,
        };
        let found = quoted.captures_iter(&passage.text);
        let found = found.chain(other.into_iter().flat_map(|o| o.captures_iter(&passage.text)));
        for given in found.filter_map(|captures| captures.get(1)) {
            if let Err(what) = known.check(given.as_str()) {
                faults.push(passage.fault(given.start(), what));
            }
        }
    }
    faults
}

/// Names that commands may use.
struct Known {
    /// Directories with a Makefile.
    makefiles: BTreeSet<String>,
    /// Targets of all Makefiles.
    targets: BTreeSet<String>,
    /// Cargo's packages.
    packages: BTreeSet<String>,
    /// Cargo's tests: names of files, and of directories with a `main.rs`.
    tests: BTreeSet<String>,
    /// Texts in quotes anywhere in the code.
    quoted: BTreeSet<String>,
}

impl Known {
    fn of(tree: &Tree) -> Known {
        let target = Regex::new(r"(?m)^([a-z][a-z0-9 -]*):(?:[^=]|$)").unwrap();
        let package = Regex::new(r#"(?m)^name = "([^"]+)""#).unwrap();
        let quoted = Regex::new(r#""([^"\s]+)""#).unwrap();
        let mut known = Known {
            makefiles: BTreeSet::new(),
            targets: BTreeSet::new(),
            packages: BTreeSet::new(),
            tests: BTreeSet::new(),
            quoted: BTreeSet::new(),
        };
        for (path, text) in tree.files() {
            if path.ends_with("Makefile") {
                known.makefiles.extend(path.strip_suffix("/Makefile").map(String::from));
                let names = target.captures_iter(text);
                let names = names.flat_map(|c| c.get(1).map(|names| names.as_str()));
                known.targets.extend(names.flat_map(str::split_whitespace).map(String::from));
            }
            if path.ends_with("Cargo.toml") {
                known.packages.extend(package.captures_iter(text).map(|c| c[1].to_owned()));
            }
            if let Some((_, test)) = path.rsplit_once("tests/") {
                let name = test.strip_suffix("/main.rs").or(test.strip_suffix(".rs"));
                known.tests.extend(name.map(String::from));
            }
            if language(path, text) == Language::Rust {
                let code = code(path, text);
                known.quoted.extend(quoted.captures_iter(&code).map(|c| c[1].to_owned()));
            }
        }
        known
    }

    fn check(&self, command: &str) -> Result<(), String> {
        // A comment of the shell, or another command, follows.
        let ends = |word: &&str| !word.starts_with('#') && !["&&", "||", "|"].contains(word);
        let words: Vec<&str> = command.split_whitespace().take_while(ends).collect();
        match words.split_first() {
            // The targets are those of all our Makefiles. Other directories contain those of lvm2.
            Some((&"make", ["-C", dir, words @ ..])) => {
                let ours = self.makefiles.contains(*dir);
                words.iter().filter(|_| ours).try_for_each(|word| self.check_make(word))
            }
            Some((&"make", words)) => words.iter().try_for_each(|word| self.check_make(word)),
            _ => self.check_cargo(&words),
        }
    }

    fn check_make(&self, word: &str) -> Result<(), String> {
        let word = word.trim_end_matches([',', ':', ';', '.']);
        if let Some(scenario) = word.strip_prefix("SCENARIO=") {
            return self.check_scenario(scenario.trim_matches(['\'', '"']));
        }
        let is_target = word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.contains('=');
        if is_target && !self.targets.contains(word) {
            return Err(format!("no Makefile has the target {word}"));
        }
        Ok(())
    }

    fn check_scenario(&self, named: &str) -> Result<(), String> {
        let found = match named.strip_suffix('*') {
            Some(begin) => self.quoted.iter().any(|name| name.starts_with(begin)),
            None => self.quoted.contains(named),
        };
        if found || named == "name" { Ok(()) } else { Err(format!("no scenario is {named}")) }
    }

    fn check_cargo(&self, words: &[&str]) -> Result<(), String> {
        for pair in words.windows(2) {
            let missing = match pair[0] {
                "-p" | "--package" => !self.packages.contains(pair[1]),
                "--test" => !self.tests.contains(pair[1]),
                _ => false,
            };
            if missing {
                return Err(format!("Cargo knows no {}", pair[1]));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::faults;
    use crate::found;

    const MAKEFILE: (&str, &str) =
        ("Makefile", "# make check   tests\nall check:\n\ttrue\nX := a\n");

    #[test]
    fn a_command_that_cannot_be_given_is_found() {
        let tree = [
            MAKEFILE,
            ("c-tests/Makefile", "# make gone   nothing\nraces: all\n"),
            ("Cargo.toml", "name = \"top\"\n"),
            (
                "docs/a.md",
                "`make -C c-tests gone`\n`make chek`\n    make gone\n\
                 `cargo test -p gone`\n`cargo test --test a`",
            ),
            ("src/lib.rs", "//! `A=1 cargo test --test gone` `make lab SCENARIO=gone`"),
        ];
        let expected = [
            ("c-tests/Makefile", 1),
            ("docs/a.md", 1),
            ("docs/a.md", 2),
            ("docs/a.md", 3),
            ("docs/a.md", 4),
            ("docs/a.md", 5),
            ("src/lib.rs", 1),
            ("src/lib.rs", 1),
        ];
        assert_eq!(found(faults, &tree), expected.map(|(path, line)| (path.into(), line)));
    }

    #[test]
    fn commands_that_can_be_given_are_no_fault() {
        let tree = [
            MAKEFILE,
            ("Cargo.toml", "name = \"top\"\n"),
            ("tests/a/main.rs", "fn f() { g(\"adopt\", \"lvm2-half\") }"),
            ("tests/b.rs", "// It may make trouble."),
            ("docs/a.md", "`make check X=1` to make sure, `cargo test -p top --test a --test b`\n"),
            (
                "docs/b.md",
                "`make check SCENARIO=adopt` `make check SCENARIO='lvm2-*'` \
                 `make -C lvm2 all-of-it`\n",
            ),
        ];
        assert_eq!(found(faults, &tree), []);
    }
}
