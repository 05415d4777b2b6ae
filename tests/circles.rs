//! No files of `src` import each other in a circle: items that two of them need are below both.
//!
//! The test reads the lines that begin with `use`, outside of tests. A name that a module only
//! re-exports is followed to the file that defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module or an item of a module, as the parts of its path in the crate.
type Name = Vec<String>;

/// The `use` lines of the modules, by module.
#[derive(Default)]
struct Modules {
    /// Imports of each module.
    imports: BTreeMap<Name, Vec<Name>>,
    /// Origin of each name that a module re-exports.
    handed_on: BTreeMap<Name, Name>,
}

fn parts(path: &str) -> Name {
    path.split("::").map(str::to_owned).collect()
}

/// All names in `a::{b, c::{self, d}}`.
fn expand(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.trim().split_once('{') else {
        return vec![tree.trim().trim_end_matches("::self").to_owned()];
    };
    let inner = inner.trim_end().strip_suffix('}').expect("braces are closed");
    let (mut depth, mut begin, mut names) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(expand(&format!("{before}{}", inner[begin..at].trim())));
                begin = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.ends_with("::"));
    names
}

impl Modules {
    fn read(&mut self, directory: &Path, module: &Name) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            // These files are tests, which may use modules above those that they test.
            if ["tests", "schedules", "scheduled", "lib"].contains(&&*stem) {
                continue;
            }
            let name = [module.clone(), vec![stem]].concat();
            if path.is_dir() {
                self.read(&path, &name);
            } else {
                self.imports.insert(name.clone(), Vec::new());
                self.read_file(&fs::read_to_string(&path).unwrap(), &name);
            }
        }
    }

    fn read_file(&mut self, text: &str, module: &Name) {
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        for statement in text.split(";\n") {
            let Some(at) = statement.rfind("use ").filter(|&at| {
                let line = statement[..at].rsplit('\n').next().unwrap();
                line.is_empty() || line.starts_with("pub")
            }) else {
                continue;
            };
            let public = !statement[..at].ends_with('\n') && at > 0;
            for name in expand(&statement[at + 4..].replace('\n', " ")) {
                let mut import = parts(name.split(" as ").next().unwrap());
                match &*import[0] {
                    "crate" => drop(import.remove(0)),
                    "super" => {
                        let above = module[..module.len() - 1].to_vec();
                        import = [above, import[1..].to_vec()].concat();
                    }
                    _ => import = [module.clone(), import].concat(),
                }
                if public {
                    let last = import.last().unwrap().clone();
                    self.handed_on.insert([module.clone(), vec![last]].concat(), import.clone());
                }
                self.imports.get_mut(module).unwrap().push(import);
            }
        }
    }

    /// The file that defines a name; `None` if no file of ours does.
    fn file_of(&self, name: &Name) -> Option<Name> {
        let file = (1..=name.len()).rev().find(|&n| self.imports.contains_key(&name[..n]))?;
        match name.get(..file + 1).and_then(|item| self.handed_on.get(item)) {
            Some(origin) if origin != name => self.file_of(origin),
            _ => Some(name[..file].to_vec()),
        }
    }

    /// The imports of each file.
    fn arrows(&self) -> BTreeMap<Name, BTreeSet<Name>> {
        let files = |(module, imports): (&Name, &Vec<Name>)| {
            let files = imports.iter().filter_map(|name| self.file_of(name));
            (module.clone(), files.filter(|file| file != module).collect())
        };
        self.imports.iter().map(files).collect()
    }
}

/// The files that are in circles, or lead from one circle to another.
fn circles(mut arrows: BTreeMap<Name, BTreeSet<Name>>) -> BTreeMap<Name, BTreeSet<Name>> {
    loop {
        let imported: BTreeSet<Name> = arrows.values().flatten().cloned().collect();
        let is_end =
            |&(file, to): &(&Name, &BTreeSet<Name>)| to.is_empty() || !imported.contains(file);
        let ends: Vec<Name> = arrows.iter().filter(is_end).map(|(file, _)| file.clone()).collect();
        if ends.is_empty() {
            return arrows;
        }
        for end in &ends {
            arrows.remove(end);
            for to in arrows.values_mut() {
                to.remove(end);
            }
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut modules = Modules::default();
    modules.read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Vec::new());
    let arrows = modules.arrows();
    let of = |file: &str| &arrows[&parts(file)];
    assert!(of("runtime").contains(&parts("runtime::reactor")), "imports are not read");
    assert!(of("manager::locks").contains(&parts("lock::spec")), "names are not followed");
    assert_eq!(circles(arrows.clone()), BTreeMap::new());
}

#[test]
fn a_circle_is_found() {
    let mut modules = Modules::default();
    for (module, text) in [
        ("a", "use crate::b::{self, c::Item};\nuse std::fmt;\n"),
        ("b", "mod c;\npub use c::Other;\n"),
        ("b::c", "use crate::d::Of;\n"),
        ("d", "use crate::a::{\n    Thing,\n};\n"),
        ("e", "use crate::b::Other;\n"),
    ] {
        modules.imports.insert(parts(module), Vec::new());
        modules.read_file(text, &parts(module));
    }
    assert_eq!(modules.file_of(&parts("b::Other")), Some(parts("b::c")));
    let files: Vec<Name> = circles(modules.arrows()).into_keys().collect();
    let expected = ["a", "b", "b::c", "d"].map(parts);
    assert_eq!(files, expected);
    assert_eq!(expand("a::{b, c::{self, d}}"), ["a::b", "a::c", "a::c::d"]);
}
