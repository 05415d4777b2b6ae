//! The workspace in which the instrumented engine is built: copies of the packages that its tests
//! and the simulator need.

use crate::facts::Facts;
use crate::instrument::{Instrumenter, Point};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package whose mutants are tested.
pub(crate) const ENGINE: &str = "idm-engine";
/// The package that tests the engine besides its own tests.
pub(crate) const SIMULATOR: &str = "idm-sim";
/// Build profile: fast code, with all checks on.
const PROFILE: &str = "
[profile.mutants]
inherits = \"release\"
debug = 0
debug-assertions = true
overflow-checks = true
incremental = true
";

/// Sources that decide which mutants there are, and how they are tested.
const OWN_SOURCES: &[&str] = &[
    include_str!("facts.rs"),
    include_str!("instrument.rs"),
    include_str!("instrument/expressions.rs"),
    include_str!("instrument/matches.rs"),
    include_str!("switch.rs"),
    include_str!("trial.rs"),
];

/// The sources, and the workspace that is made from them.
pub(crate) struct Tree {
    /// Root of the generated workspace.
    pub(crate) root: PathBuf,
    source: PathBuf,
    /// Folders of the packages, relative to either root.
    packages: BTreeMap<String, PathBuf>,
}

impl Tree {
    /// Finds the packages of the workspace at `source`; the generated one will be at `root`.
    pub(crate) fn new(source: &Path, root: PathBuf) -> Result<Tree, Box<dyn Error>> {
        let source = source.canonicalize()?;
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(&source)
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let mut packages = BTreeMap::new();
        let mut missing = vec![ENGINE.to_owned(), SIMULATOR.to_owned()];
        while let Some(name) = missing.pop() {
            let found = metadata["packages"].as_array().into_iter().flatten();
            let package = found.into_iter().find(|package| package["name"] == *name);
            let package = package.ok_or_else(|| format!("there is no package {name}"))?;
            let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
            let folder = manifest.parent().unwrap_or(manifest).strip_prefix(&source)?;
            if folder.as_os_str().is_empty() {
                return Err(format!("{name} is not in a folder of its own").into());
            }
            packages.insert(name, folder.to_owned());
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let local = dependencies.filter(|dependency| dependency["path"].is_string());
            missing.extend(
                local
                    .filter_map(|dependency| dependency["name"].as_str())
                    .filter(|name| !packages.contains_key(*name))
                    .map(str::to_owned),
            );
        }
        Ok(Tree { root, source, packages })
    }

    /// A key for the state of all sources, including those that change and test the engine.
    pub(crate) fn key(&self) -> Result<String, Box<dyn Error>> {
        self.key_of(self.packages.values().cloned())
    }

    /// A key for the state of the changed sources, which decides which changes compile.
    pub(crate) fn key_of_engine(&self) -> Result<String, Box<dyn Error>> {
        self.key_of([self.packages[ENGINE].join("src")])
    }

    fn key_of(&self, folders: impl IntoIterator<Item = PathBuf>) -> Result<String, Box<dyn Error>> {
        let mut digest = Sha256::new();
        for text in OWN_SOURCES {
            digest.update(text);
        }
        for name in ["Cargo.toml", "Cargo.lock"] {
            digest.update(fs::read(self.source.join(name))?);
        }
        for folder in folders {
            for file in files_below(&self.source.join(folder))? {
                digest.update(file.to_string_lossy().as_bytes());
                digest.update(fs::read(&file)?);
            }
        }
        Ok(digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Writes the workspace, with all points of the engine except `disabled`. Returns all points.
    pub(crate) fn write(&self, disabled: &BTreeSet<String>) -> Result<Vec<Point>, Box<dyn Error>> {
        update(&self.root.join("Cargo.toml"), self.manifest()?.as_bytes())?;
        let lock = self.root.join("Cargo.lock");
        if !lock.exists() {
            update(&lock, &fs::read(self.source.join("Cargo.lock"))?)?;
        }
        let mut points = Vec::new();
        for (name, folder) in &self.packages {
            let (from, to) = (self.source.join(folder), self.root.join(folder));
            let kept = files_below(&from)?;
            if to.exists() {
                remove_others(&from, &to)?;
            }
            for file in kept {
                let relative = file.strip_prefix(&from)?;
                if name == ENGINE && relative.starts_with("src") {
                    continue;
                }
                update(&to.join(relative), &fs::read(&file)?)?;
            }
            if name == ENGINE {
                points = instrument_crate(&from.join("src"), &to.join("src"), disabled)?;
            }
        }
        Ok(points)
    }

    /// The instrumented sources, under the names in the compiler's messages.
    pub(crate) fn instrumented(&self) -> Result<Vec<(String, String)>, Box<dyn Error>> {
        let sources = self.root.join(&self.packages[ENGINE]).join("src");
        let mut texts = Vec::new();
        for file in files_below(&sources)? {
            let name = file.strip_prefix(&self.root)?.to_string_lossy().into_owned();
            texts.push((name, fs::read_to_string(&file)?));
        }
        Ok(texts)
    }

    fn manifest(&self) -> Result<String, Box<dyn Error>> {
        let text = fs::read_to_string(self.source.join("Cargo.toml"))?;
        let original: toml::Table = text.parse()?;
        let mut workspace = original.get("workspace").cloned().ok_or("no workspace")?;
        let members = self.packages.values().map(|folder| folder.to_string_lossy().into_owned());
        let table = workspace.as_table_mut().ok_or("the workspace is no table")?;
        table.insert("members".into(), members.collect::<Vec<_>>().into());
        table.insert("resolver".into(), "3".into());
        let mut manifest = toml::Table::new();
        manifest.insert("workspace".into(), workspace);
        Ok(format!("{manifest}{PROFILE}"))
    }
}

/// The command that calls Cargo.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Instruments all files of one crate; `from` and `to` are its source folders.
pub(crate) fn instrument_crate(
    from: &Path,
    to: &Path,
    disabled: &BTreeSet<String>,
) -> Result<Vec<Point>, Box<dyn Error>> {
    let mut files = Vec::new();
    for path in files_below(from)? {
        let text = fs::read_to_string(&path)?;
        let name = path.strip_prefix(from)?.to_string_lossy().into_owned();
        let file = syn::parse_file(&text).map_err(|error| format!("{name}: {error}"))?;
        files.push((name, file));
    }
    let facts = Facts::of(files.iter().map(|(_, file)| file));
    let mut instrumenter = Instrumenter::new(&facts, disabled);
    for (name, file) in files {
        let text = instrumenter.instrument(&name, file);
        let text = if name == "lib.rs" {
            format!("#![allow(warnings)]\n{text}\nmod mutants;\n")
        } else {
            text
        };
        update(&to.join(name), text.as_bytes())?;
    }
    update(&to.join("mutants.rs"), include_bytes!("switch.rs"))?;
    Ok(instrumenter.into_points())
}

/// All files below a folder, in order.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// Removes the files in `to` that are not in `from`.
fn remove_others(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    for file in files_below(to)? {
        let relative = file.strip_prefix(to)?;
        if !from.join(relative).exists() && !relative.ends_with("mutants.rs") {
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

/// Writes a file unless it has this content already, because Cargo builds newer files again.
fn update(path: &Path, content: &[u8]) -> Result<(), Box<dyn Error>> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, content)?)
}
