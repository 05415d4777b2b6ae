//! Snippets that are instrumented, built and run.

use crate::facts::Facts;
use crate::instrument::{Instrumenter, Point};
use crate::tree::instrument_crate;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

fn instrument(source: &str, disabled: &[&str]) -> (String, Vec<Point>) {
    let file = syn::parse_file(source).expect("the snippet is Rust");
    let facts = Facts::of([&file]);
    let disabled: BTreeSet<String> = disabled.iter().map(|name| name.to_string()).collect();
    let mut instrumenter = Instrumenter::new(&facts, &disabled);
    let text = instrumenter.instrument("a.rs", file);
    (text, instrumenter.into_points())
}

fn names(source: &str) -> Vec<String> {
    instrument(source, &[]).1.into_iter().map(|point| point.name).collect()
}

/// The changes to the text `of` in function `f`.
fn changes(source: &str, of: &str) -> Vec<String> {
    let prefix = format!("a.rs f: {of} => ");
    names(source).iter().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn a_name_has_the_function_the_text_and_a_number_where_that_is_not_enough() {
    let source = "
        mod inner {
            impl Replica {
                fn due(&self) -> Thing { thing(self.a +
                    self.b, self.a + self.b) }
            }
            impl Show for Replica {
                fn show(&self) -> Thing { thing(self.a - self.b) }
            }
        }";
    let expected = [
        "a.rs inner::Replica::due: self.a + self.b => -",
        "a.rs inner::Replica::due: self.a + self.b => - #2",
        "a.rs inner::<Replica as Show>::show: self.a - self.b => +",
    ];
    assert_eq!(names(source), expected);
}

#[test]
fn each_comparison_has_its_neighbours() {
    let of = |op| changes(&format!("fn f(a: u8, b: u8) {{ g(a {op} b) }}"), &format!("a {op} b"));
    assert_eq!(of("<"), ["<=", "!=", ">=", "true", "false"]);
    assert_eq!(of("<="), ["<", "==", ">", "true", "false"]);
    assert_eq!(of(">"), [">=", "!=", "<=", "true", "false"]);
    assert_eq!(of(">="), [">", "==", "<", "true", "false"]);
    assert_eq!(of("=="), ["!=", "<=", ">=", "true", "false"]);
    assert_eq!(of("!="), ["==", "true", "false"]);
}

#[test]
fn what_is_compared_with_a_variant_has_no_order() {
    let source = "fn f(a: Mode) { g(a == Mode::Shared) }";
    assert_eq!(changes(source, "a == Mode::Shared"), ["!=", "true", "false"]);
    assert_eq!(changes(source, "Mode::Shared"), ["Mode::Exclusive"]);
}

#[test]
fn a_condition_is_changed_once_in_each_way() {
    let source = "fn f(a: bool, b: bool) { if a && b { g() } }";
    assert_eq!(changes(source, "a && b"), ["||", "true", "false", "not"]);
    assert_eq!(changes(source, "a"), ["true"], "false would be the whole's false");
    let source = "fn f(a: bool, b: bool) { while a || b { g() } }";
    assert_eq!(changes(source, "a || b"), ["&&", "true", "false", "not"]);
    assert_eq!(changes(source, "b"), ["false"]);
    let source = "fn f(a: bool) -> u64 { match 5 { _ if a => 1, _ => 2 } }";
    assert_eq!(changes(source, "a"), ["true", "false", "not"]);
    let source = "fn f(all: &[Replica]) { all.iter().filter(|replica| replica.known()).count(); }";
    assert_eq!(changes(source, "replica.known()"), ["true", "false", "not"]);
}

#[test]
fn a_condition_that_binds_names_keeps_them() {
    let source = "fn f(a: Option<u8>) { if let Some(b) = a && b > c { g(b) } }";
    assert_eq!(changes(source, "let Some(b) = a && b > c"), ["false"]);
    assert_eq!(changes(source, "b > c"), [">=", "!=", "<=", "true"]);
}

#[test]
fn alternatives_and_arms_are_left_out_where_another_arm_takes_over() {
    let source = "fn f(a: Step) { match a { Step::A | Step::B => g(), Step::C => h(), _ => {} } }";
    let expected = ["no arm", "without Step::A", "without Step::B"];
    assert_eq!(changes(source, "Step::A | Step::B"), expected);
    assert_eq!(changes(source, "Step::C"), ["no arm"]);
    let source = "fn f(a: Step) { match a { Step::A | Step::B => g(), Step::C => h() } }";
    assert_eq!(changes(source, "Step::A | Step::B"), [""; 0]);
    let source = "fn f(a: Step) { if matches!(a, Step::A | Step::B if b) { g() } }";
    assert_eq!(changes(source, "Step::A | Step::B"), ["without Step::A", "without Step::B"]);
    assert_eq!(changes(source, "b"), ["true", "false", "not"]);
}

#[test]
fn functions_return_what_their_type_allows() {
    let of = |returns| changes(&format!("fn f() {returns} {{ g(); h() }}"), "body");
    assert_eq!(of(""), ["()"]);
    assert_eq!(of("-> bool"), ["true", "false"]);
    assert_eq!(of("-> Option<u8>"), ["None"]);
    assert_eq!(of("-> usize"), ["0", "1"]);
    assert_eq!(of("-> Replica"), [""; 0]);
}

#[test]
fn tests_constants_and_patterns_are_left_alone() {
    let source = "
        const A: u8 = 1 + 2;
        const fn f() -> u8 { 1 + 2 }
        #[cfg(test)] mod tests { fn f() { g(1 + 2) } }
        #[test] fn f() { g(1 + 2) }
        #[cfg(feature = \"broken-rules\")] fn f() { g(1 + 2) }
        fn g(a: u8) -> [u8; 4] { match a { 1 => [a; 4], _ => [b; 4] } }";
    assert_eq!(names(source), ["a.rs g: 1 => no arm"]);
}

#[test]
fn a_rule_that_no_test_breaks_is_no_condition() {
    let source = "fn f(a: bool) { if a && !broken!(rules, Quorum) { g() } }";
    assert_eq!(changes(source, "a"), ["true"]);
    assert_eq!(changes(source, "a && !broken!(rules, Quorum)"), ["true", "false", "not"]);
}

#[test]
fn what_is_left_out_keeps_its_number() {
    let source = "fn f(a: u8) -> u8 { a + 2 }";
    let (text, all) = instrument(source, &[]);
    let (less, same) = instrument(source, &["a.rs f: 2 => - 1"]);
    assert_eq!(all, same);
    assert!(text.len() > less.len());
}

/// A crate of one file, instrumented and built with its tests.
struct Built {
    folder: tempfile::TempDir,
    points: Vec<Point>,
}

impl Built {
    fn new(source: &str) -> Built {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(&from).expect("a folder");
        fs::write(from.join("lib.rs"), source).expect("a file");
        let points = instrument_crate(&from, &to, &BTreeSet::new()).expect("it is Rust");
        let status = Command::new("rustc")
            .args(["--edition", "2024", "--test", "-o", "tests", "to/lib.rs"])
            .current_dir(folder.path())
            .status()
            .expect("rustc runs");
        assert!(status.success());
        Built { folder, points }
    }

    /// Whether the tests pass with the mutant `id`.
    fn passes(&self, id: u32) -> bool {
        let mut command = Command::new(self.folder.path().join("tests"));
        let command = command.env("IDM_MUTANT", id.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs").success()
    }

    fn survivors(&self) -> Vec<&str> {
        let survivors = self.points.iter().filter(|point| self.passes(point.id));
        survivors.map(|point| point.name.as_str()).collect()
    }
}

/// All kinds of changes, in functions whose tests check everything except the planted fault.
const PLANTED: &str = r#"
#[derive(Clone, Copy, PartialEq, Debug)]
enum Step { Try(u8), Look, Wait }
fn order(a: u64, b: u64) -> bool { a < b }
// Names that the switches could have, too.
fn both(first: bool, value: bool) -> bool { first && value }
fn sum(left: u64, right: u64) -> u64 { let mut total = left + right; total -= 1; total }
fn largest(all: &[u64]) -> Option<u64> { all.iter().copied().filter(|n| *n > 3).max() }
fn tries(step: Step) -> u64 {
    match (step, &step) {
        (Step::Try(n), _) if n > 2 => 2,
        (Step::Look | Step::Wait, _) => 1,
        _ => 0,
    }
}
fn is_quiet(step: Step) -> bool { matches!(step, Step::Look | Step::Wait) }
fn known(list: &[u64], found: &mut bool) -> Option<u64> {
    *found |= !list.is_empty();
    let [one, ..] = list else { return None };
    Some(*one)
}
/// Nobody looks at what this does with zero.
fn planted(a: u64) -> u64 { if a <= 0 { 7 } else { 8 } }
#[cfg(test)]
mod tests {
    use super::*;
    #[test] fn all() {
        assert!(order(1, 2) && !order(2, 2) && !order(3, 2));
        assert!(both(true, true) && !both(true, false));
        assert!(!both(false, true) && !both(false, false));
        assert_eq!((sum(2, 3), sum(9, 1)), (4, 9));
        assert_eq!((largest(&[1, 3]), largest(&[4]), largest(&[4, 5])), (None, Some(4), Some(5)));
        assert_eq!([1, 2, 3].map(|n| tries(Step::Try(n))), [0, 0, 2]);
        assert_eq!([Step::Look, Step::Wait].map(tries), [1, 1]);
        assert!(!is_quiet(Step::Try(1)) && is_quiet(Step::Look) && is_quiet(Step::Wait));
        let (mut is, mut is_not) = (true, false);
        assert_eq!((known(&[], &mut is), known(&[], &mut is_not)), (None, None));
        assert!(is && !is_not);
        assert_eq!((known(&[6, 8], &mut is_not), is_not), (Some(6), true));
        assert_eq!(planted(5), 8);
    }
}
"#;

#[test]
fn a_planted_survivor_survives_and_nothing_else() {
    let built = Built::new(PLANTED);
    assert!(built.passes(0), "the original passes");
    let survivors = built.survivors();
    let (planted, others): (Vec<_>, Vec<_>) =
        survivors.into_iter().partition(|name| name.contains(" planted: "));
    assert_eq!(others, [""; 0]);
    assert!(planted.contains(&"lib.rs planted: a <= 0 => <"), "{planted:?}");
    assert!(!planted.contains(&"lib.rs planted: a <= 0 => true"), "{planted:?}");
}
