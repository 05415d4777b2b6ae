//! The files of the tree.

use crate::text::{self, Passage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

/// Language of a file, as far as comments and prose are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Rust,
    C,
    /// Comments begin with `#`: shell, Makefiles, settings.
    Hash,
    Markdown,
    /// Data, which no rule reads.
    Other,
}

/// All files by path, relative to the root and with slashes.
pub struct Tree {
    files: BTreeMap<String, String>,
    passages: Vec<Passage>,
    dirs: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

impl Tree {
    /// Reads all files below `root`, except build products and files of others.
    pub fn read(root: &Path) -> io::Result<Tree> {
        let mut files = BTreeMap::new();
        let ignored = ignored(&fs::read_to_string(root.join(".gitignore")).unwrap_or_default());
        read_dir(root, "", &ignored, &mut files)?;
        Ok(Tree::new(files))
    }

    /// A tree with these files.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        Tree::new(files.iter().map(|&(path, text)| (path.into(), text.into())).collect())
    }

    fn new(files: BTreeMap<String, String>) -> Tree {
        let dirs = files.keys().flat_map(|path| parents(path)).map(String::from).collect();
        let ignored = files.get(".gitignore").map(|text| ignored(text)).unwrap_or_default();
        let passages = files.iter().flat_map(|(path, text)| text::passages(path, text)).collect();
        Tree { files, passages, dirs, ignored }
    }

    /// All files with their texts.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The texts for readers: pages and comments.
    pub fn passages(&self) -> impl Iterator<Item = &Passage> {
        self.passages.iter()
    }

    /// The pages.
    pub fn pages(&self) -> impl Iterator<Item = &Passage> {
        self.passages().filter(|passage| passage.language == Language::Markdown)
    }

    /// Files in one of these languages.
    pub fn in_languages(&self, which: &[Language]) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, text)| which.contains(&language(path, text)))
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether this file or directory exists.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.dirs.contains(path)
    }

    /// Whether a path is below one that builds create.
    pub fn makes(&self, path: &str) -> bool {
        std::iter::once(path).chain(parents(path)).any(|path| self.ignored.contains(path))
    }

    /// Whether a path of a file or directory is `name`, or ends with it after a slash.
    pub fn has_somewhere(&self, name: &str) -> bool {
        let ends = |path: &String| path.strip_suffix(name).is_some_and(|p| p.ends_with('/'));
        self.has(name) || self.files.keys().any(ends) || self.dirs.iter().any(ends)
    }
}

/// The language of a file, from its name or its first line.
pub fn language(path: &str, text: &str) -> Language {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("rs") => Language::Rust,
        Some("c" | "h") => Language::C,
        Some("md") => Language::Markdown,
        Some("sh" | "toml" | "conf" | "service") => Language::Hash,
        _ if name == "Makefile" || text.starts_with("#!") => Language::Hash,
        _ => Language::Other,
    }
}

/// The directories above `path`, the nearest first, without the root.
pub fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(at, _)| &path[..at])
}

/// The paths from the root that the text of `.gitignore` names.
fn ignored(text: &str) -> BTreeSet<String> {
    let paths = text.lines().filter_map(|line| line.trim().strip_prefix('/'));
    paths.map(|path| path.trim_end_matches('/').to_owned()).collect()
}

fn read_dir(
    root: &Path,
    dir: &str,
    ignored: &BTreeSet<String>,
    files: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(dir))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
        let kind = entry.file_type()?;
        if ignored.contains(&path) || name == ".git" {
            continue;
        }
        if kind.is_dir() {
            read_dir(root, &path, ignored, files)?;
        } else if kind.is_file() {
            let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
            files.insert(path, text);
        }
    }
    Ok(())
}

#[test]
fn what_is_ignored_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["src", "target/debug", "crates/a/target"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    for file in ["src/lib.rs", "target/debug/x.rs", "crates/a/target/y.rs"] {
        fs::write(root.path().join(file), "").unwrap();
    }
    fs::write(root.path().join(".gitignore"), "/target\n").unwrap();
    let tree = Tree::read(root.path()).unwrap();
    let paths: Vec<&str> = tree.files().map(|(path, _)| path).collect();
    assert_eq!(paths, [".gitignore", "crates/a/target/y.rs", "src/lib.rs"]);
    assert!(tree.has("crates/a") && tree.has_somewhere("a/target"));
    assert!(tree.makes("target/debug") && !tree.has("target"));
}

#[test]
fn languages() {
    assert_eq!(language("a/b.rs", ""), Language::Rust);
    assert_eq!(language("a/Makefile", ""), Language::Hash);
    assert_eq!(language("lvm2/build", "#!/bin/sh\n"), Language::Hash);
    assert_eq!(language("a/b.txt", "# no comment"), Language::Other);
}
