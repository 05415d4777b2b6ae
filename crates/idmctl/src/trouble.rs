//! Errors and exit codes.

use core::fmt;
use std::process::ExitCode;

/// The exit status. The numbers are in the help text and in the manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Every drive answered, and nothing is wrong.
    Good,
    /// Something is wrong that the output names.
    Wrong,
    /// Drives did not answer, so the output may be incomplete.
    Silent,
    /// The action failed.
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

/// An error with its place and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The failure.
    pub what: String,
    /// The drive or file.
    pub whose: String,
    /// The remedy.
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
