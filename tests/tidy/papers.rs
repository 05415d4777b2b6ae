//! No comment or page refers by number to a paper that is not in the tree.

use crate::Fault;
use crate::tree::Tree;
use regex_lite::Regex;

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let numbered = Regex::new(
        r"(?xi) \b(?: (?:contract|traces|design|review|notes?|paper),?\s+sections?\s+[0-9] |
            facts?\s+[0-9] | design\s+decisions?\s+[0-9] | design\s+card\b |
            the\s+review(?:'s|er)?\b )",
    )
    .unwrap();
    let mut faults = Vec::new();
    for passage in tree.passages() {
        for found in numbered.find_iter(&passage.text) {
            let said = found.as_str().split_whitespace().collect::<Vec<_>>().join(" ");
            faults.push(passage.fault(found.start(), format!("\"{said}\" is not in the tree")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::faults;
    use crate::found;

    #[test]
    fn a_reference_to_a_paper_is_found() {
        let tree = [
            (
                "src/a.rs",
                "// As it says (contract,\n// section 3).\nfn f() {}\n// Facts 3 and 4.\n",
            ),
            ("src/b.c", "/* Design decision 14. */"),
            ("docs/a.md", "As the review says.\n"),
        ];
        let expected = [("docs/a.md", 1), ("src/a.rs", 1), ("src/a.rs", 4), ("src/b.c", 1)];
        assert_eq!(found(faults, &tree), expected.map(|(path, line)| (path.into(), line)));
    }

    #[test]
    fn words_that_refer_to_nothing_are_no_fault() {
        let tree = [("src/a.rs", "fn review() {} // SPC-4 section 7.8.6; these are facts.\n")];
        assert_eq!(found(faults, &tree), []);
    }
}
