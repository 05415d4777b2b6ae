//! The diagrams of `docs/locking.md`, as scenarios.

use crate::ids::{DriveIx, DriveSet, HostIx, Ix, LockIx};
use crate::picture::{self, View};
use crate::plan::{Episode, Fault, Plan};
use crate::scenario::{Scenario, Step};
use crate::world::{Failure, World};
use core::time::Duration;
use idm_protocol::Mode;

/// A scenario with the title of its picture.
#[derive(Clone, Debug)]
pub struct Diagram {
    /// The picture's file name without the extension.
    pub name: &'static str,
    /// The title above the picture.
    pub title: &'static str,
    /// The course of events.
    pub scenario: Scenario,
}

const S: u64 = 1_000_000;
const MS: u64 = 1000;

fn host(i: usize) -> HostIx {
    HostIx::new(i)
}

fn drive(i: usize) -> DriveIx {
    DriveIx::new(i)
}

/// Two hosts and some drives; each host is nearer to other drives.
fn plan(drives: usize, layout: usize) -> Plan {
    let mut plan = Plan::quiet(2, drives, DriveSet::first(layout), Duration::from_secs(60));
    for d in 0..drives {
        plan.delay[host(0)][drive(d)] = 600 + 400 * d as u32;
        plan.delay[host(1)][drive(d)] = 2200 - 400 * d as u32;
    }
    plan
}

fn episode(from: u64, to: u64, what: Fault) -> Episode {
    Episode { from, to, what }
}

/// All diagrams, in the order of the text.
pub fn all() -> Vec<Diagram> {
    vec![contention(), takeover(), drive_lost(), moved(), restart()]
}

fn contention() -> Diagram {
    let (a, b) = (host(0), host(1));
    let steps = vec![
        (2 * MS, Step::Acquire(a, Mode::Exclusive)),
        (2 * MS, Step::Acquire(b, Mode::Exclusive)),
        (30 * S, Step::Release(a)),
        (31 * S, Step::Acquire(b, Mode::Exclusive)),
    ];
    let mut plan = plan(3, 3);
    plan.delay[b][drive(2)] = 500;
    Diagram {
        name: "contention",
        title: "Two hosts ask for the same lock at once",
        scenario: Scenario { plan, steps, end: 32 * S },
    }
}

fn takeover() -> Diagram {
    let (a, b) = (host(0), host(1));
    let mut plan = plan(3, 3);
    plan.episodes.push(episode(25 * S, 200 * S, Fault::Reboot(a)));
    let steps = vec![
        (S, Step::Acquire(a, Mode::Exclusive)),
        (40 * S, Step::Acquire(b, Mode::Exclusive)),
        (95 * S, Step::Acquire(b, Mode::Exclusive)),
    ];
    Diagram {
        name: "takeover",
        title: "A host dies; another takes its lock when the leases have run out",
        scenario: Scenario { plan, steps, end: 96 * S },
    }
}

fn drive_lost() -> Diagram {
    let a = host(0);
    let mut plan = plan(3, 3);
    plan.host_clocks = plan.host_clocks.iter().take(1).map(|(_, &clock)| clock).collect();
    plan.episodes.push(episode(10 * S, 150 * S, Fault::DriveDead(drive(2))));
    plan.episodes.push(episode(50 * S, 125 * S, Fault::DriveDead(drive(1))));
    let steps = vec![(S, Step::Acquire(a, Mode::Exclusive))];
    Diagram {
        name: "drive-lost",
        title: "One drive of three is lost, then a second one; both come back",
        scenario: Scenario { plan, steps, end: 175 * S },
    }
}

fn moved() -> Diagram {
    let (a, b) = (host(0), host(1));
    let mut plan = plan(5, 3);
    plan.delay[a][drive(2)] = 300;
    let new = [2, 3, 4].into_iter().map(drive).collect();
    let steps = vec![
        (S, Step::Acquire(a, Mode::Exclusive)),
        (2 * S, Step::Spread(a, new)),
        (3 * S, Step::Acquire(b, Mode::Exclusive)),
    ];
    Diagram {
        name: "moved",
        title: "The votes for a held lock move from d0 d1 d2 to d2 d3 d4",
        scenario: Scenario { plan, steps, end: 4 * S },
    }
}

fn restart() -> Diagram {
    let (a, b) = (host(0), host(1));
    let mut plan = plan(3, 3);
    plan.episodes.push(episode(25 * S, 27 * S, Fault::Restart(a)));
    let steps = vec![
        (S, Step::Acquire(a, Mode::Exclusive)),
        (26 * S, Step::Acquire(b, Mode::Exclusive)),
        (27 * S + 100 * MS, Step::Adopt(a, Mode::Exclusive)),
        (70 * S, Step::Acquire(b, Mode::Exclusive)),
    ];
    Diagram {
        name: "restart",
        title: "lvmlockd dies, is started again and adopts its lock",
        scenario: Scenario { plan, steps, end: 71 * S },
    }
}

/// Draws a diagram as an SVG.
pub fn draw(diagram: &Diagram) -> Result<String, Failure> {
    let mut world = World::new();
    world.observe();
    world.play(&diagram.scenario)?;
    let recording = world.take_recording().unwrap_or_default();
    let view = View { title: diagram.title.to_owned(), lock: LockIx::new(0), from: 0, to: None };
    Ok(picture::draw(&recording, &view))
}
