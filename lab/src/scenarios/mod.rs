//! What is tried. Each scenario begins with new drives and no machine.

mod bytes;
mod one_host;

use crate::cluster::Cluster;
use anyhow::Result;

/// What is expected of a scenario.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// It passes.
    Pass,
    /// It fails, because something is not done yet. Failing otherwise, or passing, is an error.
    #[allow(dead_code)]
    Failure {
        /// A part of the error that is expected.
        at: &'static str,
        /// What is missing.
        because: &'static str,
    },
}

/// Something to be tried.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Whether it belongs to the short form.
    pub short: bool,
    /// What is expected.
    pub expect: Expect,
    /// What it does.
    pub run: fn(&mut Cluster) -> Result<()>,
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bytes",
        about: "sg3-utils, which know nothing of us, see the drive that the facts describe",
        short: false,
        expect: Expect::Pass,
        run: bytes::run,
    },
    Scenario {
        name: "one-host",
        about: "everything that LVM does with a shared VG, on one host",
        short: true,
        expect: Expect::Pass,
        run: one_host::run,
    },
];
