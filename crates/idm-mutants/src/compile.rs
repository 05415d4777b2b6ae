//! Builds the generated workspace, and removes mutants that do not compile.

use crate::instrument::Point;
use crate::tree::{ENGINE, SIMULATOR, Tree, cargo};
use proc_macro2::{TokenStream, TokenTree};
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Number of builds after which all points that do not compile should have been found.
const ROUNDS: usize = 40;
/// Use of a variable without a value: the compiler's other messages name the cause.
const NOT_ASSIGNED: &str = "E0381";

/// A piece of the instrumented text, and its points.
struct Region {
    at: Range<usize>,
    points: Vec<u32>,
}

/// Programs that were built.
pub(crate) struct Programs {
    /// Tests of the engine.
    pub(crate) tests: Vec<PathBuf>,
    /// The simulator.
    pub(crate) simulator: PathBuf,
}

/// Names of points that do not compile, with the compiler's messages.
pub(crate) type Disabled = BTreeMap<String, String>;

/// Writes the workspace until the engine compiles. Returns all points, and those that were left
/// out.
pub(crate) fn instrument(
    tree: &Tree,
    mut disabled: Disabled,
) -> Result<(Vec<Point>, Disabled), Box<dyn Error>> {
    for _ in 0..ROUNDS {
        let points = tree.write(&disabled.keys().cloned().collect())?;
        let messages = cargo_messages(tree, &["check", "-p", ENGINE])?;
        let errors: Vec<_> = messages.iter().filter(|m| is_error(m)).collect();
        if errors.is_empty() {
            return Ok((points, disabled));
        }
        let mut regions = BTreeMap::new();
        for (name, text) in tree.instrumented()? {
            let mut found = Vec::new();
            collect_regions(text.parse()?, &mut found);
            regions.insert(name, found);
        }
        let before = disabled.len();
        for error in &errors {
            let message = error["message"]["message"].as_str().unwrap_or_default();
            for id in blamed(&error["message"], &regions) {
                let name = points[id as usize - 1].name.clone();
                disabled.entry(name).or_insert_with(|| message.to_owned());
            }
        }
        if disabled.len() == before {
            let text = errors[0]["message"]["rendered"].as_str().unwrap_or_default();
            let text: String = text.chars().take(2000).collect();
            return Err(format!("no mutant is to blame:\n{text}").into());
        }
        eprintln!("left out {} points, which do not compile", disabled.len());
    }
    Err("the instrumented engine does not compile".into())
}

/// Builds the engine's tests and the simulator.
pub(crate) fn build(tree: &Tree) -> Result<Programs, Box<dyn Error>> {
    let tests = executables(tree, &["test", "--no-run", "-p", ENGINE])?;
    let simulator = executables(tree, &["build", "-p", SIMULATOR, "--bin", SIMULATOR])?;
    let tests = tests.into_iter().map(|(_, path)| path).collect();
    Ok(Programs { tests, simulator: named(simulator, SIMULATOR)? })
}

/// Builds one of the simulator's tests.
pub(crate) fn build_test(tree: &Tree, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    // Cargo also builds the simulator itself for its tests.
    named(executables(tree, &["test", "--no-run", "-p", SIMULATOR, "--test", name])?, name)
}

fn named(programs: Vec<(String, PathBuf)>, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let found = programs.into_iter().find(|(of, _)| of == name);
    Ok(found.ok_or_else(|| format!("{name} was not built"))?.1)
}

/// Runs a build. Returns the resulting programs, with the names of their sources.
fn executables(tree: &Tree, arguments: &[&str]) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let messages = cargo_messages(tree, arguments)?;
    if let Some(error) = messages.iter().find(|message| is_error(message)) {
        return Err(error["message"]["rendered"].as_str().unwrap_or_default().into());
    }
    let program = |message: &Value| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    };
    Ok(messages.iter().filter_map(program).collect())
}

fn cargo_messages(tree: &Tree, arguments: &[&str]) -> Result<Vec<Value>, Box<dyn Error>> {
    let output = Command::new(cargo())
        .args(arguments)
        .args(["--profile", "mutants", "--message-format", "json", "--target-dir", "target"])
        .current_dir(&tree.root)
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let messages: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    if !output.status.success() && !messages.iter().any(is_error) {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(messages)
}

fn is_error(message: &Value) -> bool {
    message["reason"] == "compiler-message"
        && message["message"]["level"] == "error"
        && message["message"]["spans"].as_array().is_some_and(|spans| !spans.is_empty())
}

/// Finds the pieces of the text where points are.
fn collect_regions(tokens: TokenStream, regions: &mut Vec<Region>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let is_marked = at >= 2
            && matches!(&tokens[at - 2], TokenTree::Ident(name) if name == "w")
            && matches!(&tokens[at - 1], TokenTree::Punct(punct) if punct.as_char() == '!');
        if is_marked {
            let points = group.stream().into_iter().map_while(|token| match token {
                TokenTree::Literal(id) => id.to_string().parse().ok(),
                _ => None,
            });
            regions.push(Region { at: group.span().byte_range(), points: points.collect() });
        }
        collect_regions(group.stream(), regions);
    }
}

/// The points to blame for an error: those of the smallest piece around one of its places; if there
/// is none, those of the pieces inside.
fn blamed(error: &Value, regions: &BTreeMap<String, Vec<Region>>) -> Vec<u32> {
    let mut places = Vec::new();
    let mut spans: Vec<&Value> = error["spans"].as_array().into_iter().flatten().collect();
    let primary_first = error["code"]["code"] != NOT_ASSIGNED;
    spans.sort_by_key(|span| (span["is_primary"] == true) != primary_first);
    for span in spans {
        let mut span = span;
        while span.is_object() {
            places.extend(place(span));
            span = &span["expansion"]["span"];
        }
    }
    let known =
        || places.iter().filter_map(|(name, at)| regions.get(name).map(|regions| (regions, at)));
    let around = known().find_map(|(regions, at)| {
        let around = regions.iter().filter(|r| r.at.start <= at.start && at.end <= r.at.end);
        around.min_by_key(|region| region.at.len())
    });
    if let Some(region) = around {
        return region.points.clone();
    }
    let within = known().flat_map(|(regions, at)| {
        regions.iter().filter(|r| at.start <= r.at.start && r.at.end <= at.end)
    });
    within.flat_map(|region| region.points.clone()).collect()
}

fn place(span: &Value) -> Option<(String, Range<usize>)> {
    let start = span["byte_start"].as_u64()? as usize;
    let end = span["byte_end"].as_u64()? as usize;
    Some((span["file_name"].as_str()?.to_owned(), start..end))
}
