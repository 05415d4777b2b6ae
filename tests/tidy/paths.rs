//! Every path that a comment or a page names exists.

use crate::Fault;
use crate::tree::{Tree, parents};
use regex_lite::Regex;

/// Files of this project have these extensions, wherever they are.
const OURS: [&str; 3] = [".md", ".patch", ".rs"];

/// Paths of lvm2 and Linux that look like ours.
const OF_OTHERS: [&str; 5] = [
    "aa-lvmlockd-idm-prepare.sh",
    "include/uapi/linux/watchdog.h",
    "lvmlockd-core.c",
    "lvmlockd-helper.c",
    "zz-lvmlockd-idm-remove.sh",
];

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let path = Regex::new(
        r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+/?|[A-Za-z0-9_-]+\.(?:rs|md|sh|c|h|patch)\b",
    )
    .unwrap();
    let mut faults = Vec::new();
    for passage in tree.passages() {
        for found in path.find_iter(&passage.text) {
            let (before, after) = (&passage.text[..found.start()], &passage.text[found.end()..]);
            let named = found.as_str().trim_end_matches(['.', '/']);
            let meant = is_whole(before, after) && is_ours(tree, named);
            if meant && !exists(tree, &passage.path, named) {
                faults.push(passage.fault(found.start(), format!("there is no {named}")));
            }
        }
    }
    faults
}

/// Whether the text around a path shows that it is not a part of something else: of an absolute
/// path, an address, a pattern, a variable.
fn is_whole(before: &str, after: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "/~$}{>*<:@%_=\\…".contains(c);
    !before.ends_with(goes_on) && !after.starts_with(|c| "/*{<$…@".contains(c))
}

/// Whether a path is meant to be in this tree.
fn is_ours(tree: &Tree, named: &str) -> bool {
    let top = named.split('/').next().unwrap_or(named);
    if OF_OTHERS.contains(&named) {
        return false;
    }
    OURS.iter().any(|extension| named.ends_with(extension))
        || named.contains('/') && tree.has(top)
        || !named.contains('/') && named.contains('.')
}

/// Whether `named` is a path from the root or from one of the directories above `file`; if it does
/// not begin at the root, the end of a path is enough.
fn exists(tree: &Tree, file: &str, named: &str) -> bool {
    let top = named.split('/').next().unwrap_or(named);
    tree.has(named)
        || tree.makes(named)
        || parents(file).any(|dir| tree.has(&format!("{dir}/{named}")))
        || !(named.contains('/') && tree.has(top)) && tree.has_somewhere(named)
}

#[cfg(test)]
mod tests {
    use super::faults;
    use crate::found;

    #[test]
    fn a_dead_path_is_found() {
        let tree = [
            (
                "src/lib.rs",
                "//! See `src/gone.rs`,\n//! `docs/gone.md`, src/lib.rs and tests/hosts.rs.",
            ),
            (
                "docs/a.md",
                "The patch `lvm2/gone.patch`, `lib.rs`, and\nthe directory `src/gone`.\n",
            ),
            ("Makefile", "# Runs src/run.sh.\nall:\n\tsrc/gone-too.sh\n"),
        ];
        let expected = [
            ("Makefile", 1),
            ("docs/a.md", 1),
            ("docs/a.md", 2),
            ("src/lib.rs", 1),
            ("src/lib.rs", 2),
            ("src/lib.rs", 2),
        ];
        assert_eq!(found(faults, &tree), expected.map(|(path, line)| (path.into(), line)));
    }

    #[test]
    fn what_exists_or_is_not_ours_is_no_fault() {
        let tree = [
            (
                "crates/a/src/lib.rs",
                "// `tests/b.rs`, `src/lib.rs`, a/b, /src/x.rs, src/*.rs, lib.rs",
            ),
            ("crates/a/tests/b.rs", "fn f() { g(\"src/gone.rs\") } // https://x.org/src/gone.rs"),
            ("src/main.rs", "// build/lib/x, build/, src/made/x, and/or, src/main.rs."),
            (".gitignore", "/build\n/src/made\n"),
        ];
        assert_eq!(found(faults, &tree), []);
    }
}
