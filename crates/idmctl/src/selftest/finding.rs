//! What a rule found.

use idm_protocol::Status;
use serde::Serialize;

/// What a drive's behaviour means for the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The library relies on it, or is prepared for it.
    AsReliedOn,
    /// Locks stay safe, but something does not work or takes longer.
    DiffersButSafe,
    /// Two hosts could have one lock, or an old value could pass for the last one.
    Unsafe,
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The worst of all steps.
    pub verdict: Verdict,
    /// What the drive did in each step, in words that do not depend on the time that it took.
    pub seen: Vec<String>,
    /// The steps that are not as the library relies on.
    pub differs: Vec<String>,
    /// Whether it could not be found out.
    pub skipped: bool,
}

impl Default for Finding {
    fn default() -> Finding {
        Finding {
            verdict: Verdict::AsReliedOn,
            seen: Vec::new(),
            differs: Vec::new(),
            skipped: false,
        }
    }
}

/// The statuses with which a drive refuses what another host's hold forbids. None gives anybody a
/// lock.
const REFUSALS: [Status; 4] =
    [Status::Conflict, Status::Terminated, Status::WrongState, Status::TryAgain];

/// A status in a word.
pub fn word(status: Status) -> String {
    match status {
        Status::Good => "GOOD",
        Status::Conflict => "conflict",
        Status::Terminated => "terminated",
        Status::NotFound => "not found",
        Status::WrongState => "wrong state",
        Status::TryAgain => "busy",
        Status::Unsupported => "unsupported",
        Status::Full(_) => return format!("{status:?}").to_lowercase(),
        Status::Failed | Status::Unreachable | Status::Uncertain => "failed",
    }
    .to_owned()
}

impl Finding {
    /// What could not be found out, and why.
    pub fn skipped(why: &str) -> Finding {
        Finding { seen: vec![format!("not tested: {why}")], skipped: true, ..Finding::default() }
    }

    /// A step that may be either way.
    pub fn note(&mut self, what: &str, seen: impl core::fmt::Display) {
        self.seen.push(format!("{what}: {seen}"));
    }

    /// A step that has to be so; otherwise it is that bad.
    pub fn demand(&mut self, what: &str, holds: bool, otherwise: Verdict) {
        if !holds {
            self.seen.push(format!("NOT {what}"));
            self.differs.push(format!("not so: {what}"));
            self.verdict = self.verdict.max(otherwise);
        }
    }

    /// A command that has to succeed; otherwise something does not work.
    pub fn works(&mut self, what: &str, status: Status) -> bool {
        self.note(what, word(status));
        if status != Status::Good {
            self.differs.push(format!("{what} is answered with \"{}\"", word(status)));
            self.verdict = self.verdict.max(Verdict::DiffersButSafe);
        }
        status == Status::Good
    }

    /// A command that has to be refused; success is that bad.
    pub fn refused(&mut self, what: &str, status: Status, otherwise: Verdict) {
        self.note(what, word(status));
        if status == Status::Good {
            self.differs.push(format!("{what} succeeds"));
            self.verdict = self.verdict.max(otherwise);
        } else if !REFUSALS.contains(&status) {
            self.differs.push(format!("{what} is answered with \"{}\"", word(status)));
            self.verdict = self.verdict.max(Verdict::DiffersButSafe);
        }
    }

    /// A command about a mutex that is not there.
    pub fn absent(&mut self, what: &str, status: Status, otherwise: Verdict) {
        self.note(what, word(status));
        if status != Status::NotFound {
            let verdict = if status == Status::Good { otherwise } else { Verdict::DiffersButSafe };
            self.differs.push(format!("{what} is answered with \"{}\"", word(status)));
            self.verdict = self.verdict.max(verdict);
        }
    }
}
