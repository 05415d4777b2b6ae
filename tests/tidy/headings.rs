//! Every heading or anchor that a comment or a page names exists.

use crate::Fault;
use crate::tree::{Language, Tree, language, parents};
use regex_lite::Regex;

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let mut faults = named_headings(tree);
    faults.extend(links(tree));
    faults
}

/// Headings in quotes after the name of their page, or before "in" and a link to it.
fn named_headings(tree: &Tree) -> Vec<Fault> {
    let page_first = Regex::new(r#"([A-Za-z0-9_/-]+\.md)`?,\s+"([^"]+)""#).unwrap();
    let heading_first =
        Regex::new(r#""([^"]+)"\s+(?:in|of)\s+(?:`|\[[^\]]+\]\()([A-Za-z0-9_/-]+\.md)"#).unwrap();
    let mut faults = Vec::new();
    for passage in tree.passages() {
        let found = page_first.captures_iter(&passage.text).map(|c| (c, 1, 2));
        let found = found.chain(heading_first.captures_iter(&passage.text).map(|c| (c, 2, 1)));
        for (captures, page, heading) in found {
            let (page, heading) = (&captures[page], one_line(&captures[heading]));
            let known = resolve(tree, &passage.path, page)
                .and_then(|page| tree.text(&page))
                .is_some_and(|text| headings(text).any(|known| known == heading));
            if !known {
                let at = captures.get(0).map_or(0, |all| all.start());
                faults.push(passage.fault(at, format!("{page} has no \"{heading}\"")));
            }
        }
    }
    faults
}

/// Markdown links, with and without an anchor.
fn links(tree: &Tree) -> Vec<Fault> {
    let link = Regex::new(r"\]\(([^)\s]*)\)").unwrap();
    let mut faults = Vec::new();
    for page in tree.pages() {
        for target in link.captures_iter(&page.text).filter_map(|captures| captures.get(1)) {
            let (at, target) = (target.start(), target.as_str());
            if !target.contains("://") && !leads_somewhere(tree, &page.path, target) {
                faults.push(page.fault(at, format!("{target} leads nowhere")));
            }
        }
    }
    faults
}

fn leads_somewhere(tree: &Tree, file: &str, target: &str) -> bool {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let page = if path.is_empty() { file.to_owned() } else { beside(file, path) };
    match tree.text(&page) {
        Some(text) => anchor.is_empty() || headings(text).any(|known| slug(&known) == anchor),
        None => anchor.is_empty() && tree.has(&page),
    }
}

/// The path that a link in `file` leads to.
fn beside(file: &str, link: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The page `named`, searched from the root, and beside and above the file that names it.
fn resolve(tree: &Tree, file: &str, named: &str) -> Option<String> {
    let near = parents(file).map(|dir| format!("{dir}/{named}"));
    std::iter::once(named.to_owned())
        .chain(near)
        .find(|path| tree.text(path).is_some_and(|text| language(path, text) == Language::Markdown))
}

/// The headings of a page, without their marks.
fn headings(page: &str) -> impl Iterator<Item = String> {
    let mut fenced = false;
    page.lines().filter_map(move |line| {
        fenced ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        (!fenced && heading.len() < line.len()).then(|| heading.trim().to_owned())
    })
}

/// The anchor that GitHub and others make from a heading.
fn slug(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{faults, slug};
    use crate::found;

    const PAGE: (&str, &str) = ("docs/a.md", "# A page\n\n## What's *here*, and why\n");

    #[test]
    fn a_dead_heading_is_found() {
        let tree = [
            PAGE,
            ("src/lib.rs", "//! x (docs/a.md,\n//! \"Not there\"). docs/gone.md, \"A page\"."),
            ("docs/b.md", "\n\"Not there\" in [a.md](a.md) and `docs/a.md`, \"Not there\"\n"),
        ];
        let expected = [("docs/b.md", 2), ("docs/b.md", 2), ("src/lib.rs", 1), ("src/lib.rs", 2)];
        assert_eq!(found(faults, &tree), expected.map(|(path, line)| (path.into(), line)));
    }

    #[test]
    fn a_dead_link_is_found() {
        let tree =
            [PAGE, ("docs/b.md", "[a](a.md#gone)\n[b](c.md)\n[c](#gone)\n[d](../docs/a.md)\n")];
        let expected = [1, 2, 3].map(|line| ("docs/b.md".to_owned(), line));
        assert_eq!(found(faults, &tree), expected);
    }

    #[test]
    fn headings_that_exist_are_no_fault() {
        let tree = [
            PAGE,
            ("src/lib.rs", "// docs/a.md, \"What's *here*,\n// and why\"; docs/a.md, \"A page\""),
            ("docs/b.md", "[a](a.md#whats-here-and-why) [b](https://x.org/#gone) [c](../src)"),
        ];
        assert_eq!(found(faults, &tree), []);
        assert_eq!(slug("What's *here*, and why"), "whats-here-and-why");
    }
}
