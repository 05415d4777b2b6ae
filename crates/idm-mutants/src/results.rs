//! Known facts about mutants: results that outlive an interruption, and the list of explained
//! survivors.

use crate::trial::Verdict;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// First line of the file, followed by the key of the sources that the results are for.
const HEAD: &str = "# results for ";
const SURVIVED: &str = "survived";
const EXPLAINED: &str = "explained";

/// Results of one state of the sources, kept in a file.
pub(crate) struct Results {
    path: PathBuf,
    verdicts: BTreeMap<String, Verdict>,
    /// Results of earlier sources, which show where to look first.
    earlier: BTreeMap<String, Verdict>,
}

impl Results {
    /// Reads the results in `folder` for the sources with the key `key`.
    pub(crate) fn open(folder: &Path, key: &str) -> Result<Results, Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        let path = folder.join("results.tsv");
        let old = folder.join("results.old.tsv");
        let present = fs::read_to_string(&path).unwrap_or_default();
        if present.strip_prefix(HEAD).and_then(|rest| rest.lines().next()) != Some(key) {
            let mut earlier = parse(&fs::read_to_string(&old).unwrap_or_default());
            earlier.extend(parse(&present));
            let lines: String = earlier.iter().map(|(name, v)| line(name, v)).collect();
            fs::write(&old, lines)?;
            fs::write(&path, format!("{HEAD}{key}\n"))?;
        }
        let verdicts = parse(&fs::read_to_string(&path)?);
        let earlier = parse(&fs::read_to_string(&old).unwrap_or_default());
        Ok(Results { path, verdicts, earlier })
    }

    /// The result of a mutant. A result "explained" counts only while the list explains the mutant.
    pub(crate) fn get(&self, name: &str, is_explained: bool) -> Option<&Verdict> {
        let verdict = self.verdicts.get(name)?;
        (is_explained || *verdict != Verdict::Explained).then_some(verdict)
    }

    /// The test that killed a mutant before the sources were changed, and the way.
    pub(crate) fn hint(&self, name: &str) -> Option<(String, String)> {
        match self.earlier.get(name)? {
            Verdict::Killed { by, how } => Some((by.clone(), how.clone())),
            Verdict::Survived | Verdict::Explained => None,
        }
    }

    /// Records a result.
    pub(crate) fn add(&mut self, name: &str, verdict: Verdict) -> Result<(), Box<dyn Error>> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(line(name, &verdict).as_bytes())?;
        self.verdicts.insert(name.to_owned(), verdict);
        Ok(())
    }
}

fn line(name: &str, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Killed { by, how } => format!("{by}\t{how}\t{name}\n"),
        Verdict::Survived => format!("{SURVIVED}\t\t{name}\n"),
        Verdict::Explained => format!("{EXPLAINED}\t\t{name}\n"),
    }
}

/// The results in a file; a last line that was cut off does not count.
fn parse(text: &str) -> BTreeMap<String, Verdict> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\t');
            let (by, how, name) = (parts.next()?, parts.next()?, parts.next()?);
            let verdict = match by {
                SURVIVED => Verdict::Survived,
                EXPLAINED => Verdict::Explained,
                by => Verdict::Killed { by: by.to_owned(), how: how.to_owned() },
            };
            Some((name.to_owned(), verdict))
        })
        .collect()
}

/// The list of explained survivors.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Explained {
    /// Functions in which no mutant is tried.
    #[serde(default)]
    pub(crate) skip: Vec<Skip>,
    /// Mutants that no test kills, with the reasons.
    #[serde(default)]
    pub(crate) survivor: Vec<Survivor>,
}

/// A function, or a file, that is left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Skip {
    /// Prefix of the names of its mutants.
    pub(crate) prefix: String,
    /// Reason.
    pub(crate) reason: String,
}

/// A mutant that survives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Survivor {
    /// Its name.
    pub(crate) mutant: String,
    /// Reason why it changes nothing.
    pub(crate) reason: String,
}

impl Explained {
    /// Reads the list; every entry has a reason, and none occurs twice.
    pub(crate) fn read(path: &Path) -> Result<Explained, Box<dyn Error>> {
        Explained::parse(&fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Explained, Box<dyn Error>> {
        let list: Explained = toml::from_str(text)?;
        let skips = list.skip.iter().map(|skip| (&skip.prefix, &skip.reason));
        let survivors = list.survivor.iter().map(|survivor| (&survivor.mutant, &survivor.reason));
        let mut seen = BTreeMap::new();
        for (name, reason) in skips.chain(survivors) {
            if reason.trim().is_empty() {
                return Err(format!("no reason is given for {name}").into());
            }
            if seen.insert(name, ()).is_some() {
                return Err(format!("{name} is listed twice").into());
            }
        }
        Ok(list)
    }

    /// Whether a mutant is not tried.
    pub(crate) fn skips(&self, name: &str) -> bool {
        self.skip.iter().any(|skip| name.starts_with(&skip.prefix))
    }

    /// Whether a mutant may survive.
    pub(crate) fn explains(&self, name: &str) -> bool {
        self.survivor.iter().any(|survivor| survivor.mutant == name)
    }
}
