//! Every test, setting or function that a page names is in the code.

use crate::Fault;
use crate::text::code;
use crate::tree::{Language, Tree};
use regex_lite::Regex;
use std::collections::BTreeSet;

/// Names of lvm2, Linux and Prometheus that our code need not contain.
const OF_OTHERS: [&str; 3] = ["lm_init_vg_idm", "max_hw_sectors_kb", "node_textfile_mtime_seconds"];

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let word = Regex::new(r"[A-Za-z0-9_]+").unwrap();
    let languages = [Language::Rust, Language::C, Language::Hash];
    let mut known: BTreeSet<String> = OF_OTHERS.map(String::from).into();
    for (path, text) in tree.in_languages(&languages) {
        known.insert(path.rsplit('/').next().unwrap_or(path).to_owned());
        known.extend(word.find_iter(&code(path, text)).map(|word| word.as_str().to_owned()));
    }
    // Names of one or two words often belong to other projects.
    let name = Regex::new(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`").unwrap();
    let mut faults = Vec::new();
    for page in tree.pages() {
        for name in name.captures_iter(&page.text).filter_map(|captures| captures.get(1)) {
            if !is_known(&known, name.as_str()) {
                faults.push(page.fault(name.start(), format!("no code has {}", name.as_str())));
            }
        }
    }
    faults
}

/// Whether the code contains a name, or its two parts, which it joins: a part that begins or ends
/// with an underscore.
fn is_known(known: &BTreeSet<String>, name: &str) -> bool {
    let parts =
        name.match_indices('_').flat_map(|(at, _)| [name.split_at(at), name.split_at(at + 1)]);
    known.contains(name) || parts.into_iter().any(|(a, b)| known.contains(a) && known.contains(b))
}

#[cfg(test)]
mod tests {
    use super::faults;
    use crate::found;

    #[test]
    fn a_test_that_is_gone_is_found() {
        let tree = [
            ("tests/a.rs", "// not_any_more_a_test\n#[test]\nfn what_is_tested_here() {}"),
            ("src/a.rs", "f(\"our_drive_{}\", paths); g(\"big_test\", \"{}_hosta\");"),
            ("docs/a.md", "`what_is_tested_here`,\n`not_any_more_a_test` `a_b` x_y_z\n"),
            ("docs/b.md", "`our_drive_paths` `big_test_hosta`\n`our_drive_workers`\n"),
        ];
        assert_eq!(found(faults, &tree), [("docs/a.md".into(), 2), ("docs/b.md".into(), 2)]);
    }
}
