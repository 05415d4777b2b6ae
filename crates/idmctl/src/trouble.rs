//! Errors and exit codes.

use core::fmt;
use std::process::ExitCode;

/// How the program ends. The numbers are in its help and in its manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was answered, and nothing is wrong.
    Good,
    /// Something is wrong that the output names.
    Wrong,
    /// Drives did not answer, so what is shown may not be all.
    Silent,
    /// It could not be done.
    Failed,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Good => 0,
            Exit::Wrong => 1,
            // 2 is clap's, for what was asked.
            Exit::Silent => 3,
            Exit::Failed => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        exit.code().into()
    }
}

/// Why something could not be done: what, where, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What failed.
    pub what: String,
    /// The drive or file.
    pub whose: String,
    /// What the administrator can do.
    pub remedy: String,
}

impl Trouble {
    /// An error in its three parts.
    pub fn new(
        what: impl Into<String>,
        whose: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Trouble {
        Trouble { what: what.into(), whose: whose.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.whose, self.what, self.remedy)
    }
}

impl std::error::Error for Trouble {}
