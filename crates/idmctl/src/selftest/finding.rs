//! The result of a rule.

use idm_protocol::Status;
use serde::Serialize;

/// The meaning of a drive's behaviour for the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The library relies on it, or is prepared for it.
    AsReliedOn,
    /// Locks stay safe, but something does not work or takes longer.
    DiffersButSafe,
    /// Two hosts could have one lock, or an old value could look like the last one.
    Unsafe,
}

/// The result of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The worst of all steps.
    pub verdict: Verdict,
    /// The drive's behaviour in each step, in words that do not depend on times.
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

/// The statuses with which a drive refuses a command because another host holds the mutex. None
/// gives a host a lock.
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
    /// The result of a rule that was not tested, with the reason.
    pub fn skipped(why: &str) -> Finding {
        Finding { seen: vec![format!("not tested: {why}")], skipped: true, ..Finding::default() }
    }

    /// Notes a step in which firmware may behave either way.
    pub fn note(&mut self, what: &str, seen: impl core::fmt::Display) {
        self.seen.push(format!("{what}: {seen}"));
    }

    /// Demands that a statement holds; `otherwise` is the verdict if it does not.
    pub fn demand(&mut self, what: &str, holds: bool, otherwise: Verdict) {
        if !holds {
            self.seen.push(format!("NOT {what}"));
            self.differs.push(format!("not so: {what}"));
            self.verdict = self.verdict.max(otherwise);
        }
    }

    /// Demands that a command succeeds. Returns whether it did.
    pub fn works(&mut self, what: &str, status: Status) -> bool {
        self.note(what, word(status));
        if status != Status::Good {
            self.differs.push(format!("{what} is answered with \"{}\"", word(status)));
            self.verdict = self.verdict.max(Verdict::DiffersButSafe);
        }
        status == Status::Good
    }

    /// Demands that a command is refused; `otherwise` is the verdict if it succeeds.
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

    /// Demands "not found"; `otherwise` is the verdict if the command succeeds.
    pub fn absent(&mut self, what: &str, status: Status, otherwise: Verdict) {
        self.note(what, word(status));
        if status != Status::NotFound {
            let verdict = if status == Status::Good { otherwise } else { Verdict::DiffersButSafe };
            self.differs.push(format!("{what} is answered with \"{}\"", word(status)));
            self.verdict = self.verdict.max(verdict);
        }
    }
}
