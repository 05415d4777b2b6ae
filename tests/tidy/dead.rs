//! No file is left over: every module is reached by a `mod`, every page is named, and every script
//! is called.

use crate::Fault;
use crate::text::code;
use crate::tree::{Language, Tree, language};
use regex_lite::Regex;
use std::collections::BTreeSet;

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let mut faults = dead_modules(tree);
    faults.extend(dead_files(tree));
    faults
}

fn dead_modules(tree: &Tree) -> Vec<Fault> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<(String, bool)> = roots(tree).into_iter().map(|root| (root, true)).collect();
    let declarations = Declarations::new();
    while let Some((path, is_root)) = next.pop() {
        if reached.insert(path.clone()) {
            let modules = modules(tree, &path, is_root, &declarations);
            next.extend(modules.into_iter().map(|path| (path, false)));
        }
    }
    let all = tree.in_languages(&[Language::Rust]).map(|(path, _)| path);
    let dead = all.filter(|&path| !reached.contains(path));
    dead.map(|path| Fault::new(path, 0, "no crate reaches this module")).collect()
}

/// The files that Cargo compiles by default in the directory of each manifest.
fn roots(tree: &Tree) -> Vec<String> {
    let by_itself = Regex::new(
        r"(?x) ^(?: build | src/(?:lib|main) |
            (?:src/bin|tests|benches|examples)/[^/]+(?:/main)? )\.rs$",
    )
    .unwrap();
    let named = Regex::new(r#"(?m)^path = "([^"]+\.rs)""#).unwrap();
    let mut roots = Vec::new();
    for (manifest, text) in tree.files().filter(|(path, _)| path.ends_with("Cargo.toml")) {
        let dir = manifest.trim_end_matches("Cargo.toml");
        let below = tree.files().filter_map(|(path, _)| path.strip_prefix(dir));
        roots.extend(below.filter(|path| by_itself.is_match(path)).map(|p| format!("{dir}{p}")));
        roots.extend(named.captures_iter(text).map(|c| format!("{dir}{}", &c[1])));
    }
    roots
}

/// References of one file to others.
struct Declarations {
    modules: Regex,
    included: Regex,
}

impl Declarations {
    fn new() -> Declarations {
        let modules = Regex::new(
            r#"(?:#\[path = "([^"]+)"\]\s*(?:#\[[^\]]*\]\s*)*)?\bmod\s+([a-z0-9_]+)\s*;"#,
        );
        let included = Regex::new(r#"include(?:_str)?!\(\s*"([^"]+\.rs)""#);
        Declarations { modules: modules.unwrap(), included: included.unwrap() }
    }
}

/// The files of the modules that `path` declares, and of its includes.
fn modules(tree: &Tree, path: &str, is_root: bool, declarations: &Declarations) -> Vec<String> {
    let Declarations { modules, included } = declarations;
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let own = name.trim_end_matches(".rs");
    let home = if is_root || own == "mod" { dir.to_owned() } else { format!("{dir}/{own}") };
    let code = tree.text(path).map(|text| code(path, text)).unwrap_or_default();
    let mut files = Vec::new();
    for captures in modules.captures_iter(&code) {
        match captures.get(1) {
            Some(beside) => files.push(format!("{dir}/{}", beside.as_str())),
            None => {
                let module = &captures[2];
                files.extend([format!("{home}/{module}.rs"), format!("{home}/{module}/mod.rs")]);
            }
        }
    }
    files.extend(included.captures_iter(&code).map(|c| format!("{dir}/{}", &c[1])));
    let paths = files.iter().map(|path| path.trim_start_matches('/'));
    paths.filter(|path| tree.has(path)).map(String::from).collect()
}

/// Pages and pictures below `docs` and elsewhere that no other file names, and scripts likewise.
/// Files at the top are for everybody, and hidden ones for tools.
fn dead_files(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.contains('/')) {
        let is_script = text.starts_with("#!") && language(path, text) == Language::Hash;
        let is_page = language(path, text) == Language::Markdown || path.starts_with("docs/");
        if (is_script || is_page) && !path.starts_with('.') && !is_named(tree, path) {
            faults.push(Fault::new(path, 0, "no other file names this one"));
        }
    }
    faults
}

/// Whether another file contains the name of this one, or of all files in its directory.
fn is_named(tree: &Tree, path: &str) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let all = format!("{}/*", dir.rsplit('/').next().unwrap_or(dir));
    let mut others = tree.files().filter(|(other, _)| *other != path);
    others.any(|(_, text)| has_word(text, name) || text.contains(&all))
}

/// Whether `text` contains `name`, and not only as a part of a longer name.
fn has_word(text: &str, name: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    text.match_indices(name).any(|(at, _)| {
        let after = text[at + name.len()..].trim_start_matches('.');
        !text[..at].ends_with(in_name) && !after.starts_with(in_name)
    })
}

#[cfg(test)]
mod tests {
    use super::faults;
    use crate::found;

    const MANIFESTS: [(&str, &str); 2] =
        [("Cargo.toml", "[package]"), ("crates/a/Cargo.toml", "[[bin]]\npath = \"tool.rs\"\n")];

    #[test]
    fn a_module_that_nothing_reaches_is_found() {
        let mut tree = MANIFESTS.to_vec();
        tree.extend([
            ("src/lib.rs", "mod a;\n// mod gone;\n#[cfg(test)]\nmod b;"),
            ("src/a.rs", "pub(crate) mod c;"),
            ("src/a/c.rs", ""),
            ("src/a/d.rs", "mod c;"),
            ("src/b/mod.rs", "#[path = \"other.rs\"]\nmod e;"),
            ("src/b/other.rs", ""),
            ("src/gone.rs", ""),
            ("tests/x.rs", "mod common;"),
            ("tests/common/mod.rs", ""),
            ("crates/a/tool.rs", "include!(\"part.rs\"); include_str!(\"text.rs\");"),
            ("crates/a/part.rs", ""),
            ("crates/a/text.rs", ""),
            ("crates/a/gone.rs", ""),
        ]);
        let expected = ["crates/a/gone.rs", "src/a/d.rs", "src/gone.rs"];
        assert_eq!(found(faults, &tree), expected.map(|path| (path.into(), 0)));
    }

    #[test]
    fn a_page_or_script_that_nothing_names_is_found() {
        let tree = [
            ("README.md", "[a](docs/a.md), scripts/run.sh."),
            ("Makefile", "a:\n\tcp tools/shims/* build/\n"),
            ("docs/a.md", "![b](pictures/b.svg)"),
            ("docs/ba.md", "scripts/run.sh.old docs/pictures/c.svg2"),
            ("docs/pictures/b.svg", ""),
            ("docs/pictures/c.svg", ""),
            ("scripts/run.sh", "#!/bin/sh\n"),
            ("scripts/stop.sh", "#!/bin/sh\n# stop.sh\n"),
            ("tools/shims/readlink", "#!/bin/sh\n"),
            (".ci/run", "#!/bin/sh\n"),
        ];
        let expected = ["docs/ba.md", "docs/pictures/c.svg", "scripts/stop.sh"];
        assert_eq!(found(faults, &tree), expected.map(|path| (path.into(), 0)));
    }
}
