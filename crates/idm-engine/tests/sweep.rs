//! The VG's list of drives changes twice while a lock is held, after any number of commands, with
//! one path cut for a while, with or without a restart of lvmlockd in between, and with or without
//! a change of the mode right after that. Every drive answers from the second list on, so that the
//! lock has to be kept.

mod bench;

use bench::*;
use idm_emulator::Profile;
use idm_engine::{Lock, Outcome};
use idm_protocol::{Mode, MutexOp};
use std::collections::BTreeMap;

const DRIVES: u32 = 5;
/// Drives that the LV lies on when its lock is taken.
const LV: [&[u32]; 3] = [&[0], &[0, 1], &[0, 1, 2]];
const LISTS: [&[u32]; 8] =
    [&[0], &[0, 1], &[0, 1, 2], &[1, 2], &[0, 3], &[1, 2, 3], &[3, 4], &[0, 1, 2, 3, 4]];
/// The path that is cut when the first list has been named, and for how many seconds.
const CUTS: [Option<(usize, u32)>; 5] =
    [None, Some((0, 1)), Some((1, 1)), Some((0, 25)), Some((2, 5))];
/// Numbers of commands between the first list and the second.
const STEPS: [u32; 11] = [0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 25];
/// Every case takes a minute; of all of them, one in so many is tried.
const SAMPLE: usize = 7;

#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Mode,
    stores_marks: bool,
    restarts: bool,
    converts: bool,
    lv: &'static [u32],
    lists: [&'static [u32]; 2],
    cut: Option<(usize, u32)>,
    steps: u32,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, stores_marks) in [(X, false), (X, true), (S, false), (S, true)] {
        for (restarts, converts) in flags() {
            for (lv, first) in LV.iter().flat_map(|lv| LISTS.map(|first| (*lv, first))) {
                for (second, cut) in LISTS.iter().flat_map(|list| CUTS.map(|cut| (*list, cut))) {
                    let lists = [first, second];
                    let case = |steps| Case {
                        mode,
                        stores_marks,
                        restarts,
                        converts,
                        lv,
                        lists,
                        cut,
                        steps,
                    };
                    cases.extend(STEPS.map(case));
                }
            }
        }
    }
    cases.into_iter().step_by(SAMPLE).collect()
}

fn flags() -> [(bool, bool); 4] {
    [(false, false), (false, true), (true, false), (true, true)]
}

fn rest(drives: &[u32]) -> Vec<u32> {
    (0..DRIVES).filter(|drive| !drives.contains(drive)).collect()
}

/// Lets the votes move if they can.
fn moves(bench: &Bench, lock: &mut Lock) -> bool {
    is_ready(lock).is_some_and(|ready| lock.move_votes(&ready, bench.now))
}

/// Another life of the host with the votes on these drives; `None` if it adopts nothing.
fn restarted(bench: &mut Bench, lock: &Lock, mode: Mode, drives: &[u32]) -> Option<Lock> {
    let mut next = lv_lock(1);
    let request = adopt_beside(bench, drives, &rest(drives), lock.safe_until());
    (bench.run_only(&mut next, request) == Outcome::Adopted(mode)).then_some(next)
}

/// The state when the second list is named; `None` if the lock was not adopted.
fn begin(case: &Case) -> Option<(Bench, Lock)> {
    let profile = if case.stores_marks { Profile::current() } else { forgetful() };
    let (mut bench, mut a) = (Bench::with(DRIVES as usize, profile), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, case.mode, case.lv, &rest(case.lv)), GRANTED);
    let [first, second] = case.lists;
    a.spread(&bench.members(first), bench.now);
    bench.pass(&mut a, SECOND);
    if let Some((drive, _)) = case.cut {
        bench.paths[drive] = Path::Cut;
    }
    if moves(&bench, &mut a) && case.restarts {
        a = restarted(&mut bench, &a, case.mode, first)?;
    }
    if let Some((_, seconds)) = case.cut {
        bench.pass(&mut a, SECOND * seconds);
        bench.paths.fill(Path::Up);
    }
    for _ in 0..case.steps {
        if bench.step(&mut a).is_none() {
            bench.wait(&mut a);
        }
        moves(&bench, &mut a);
    }
    a.spread(&bench.members(second), bench.now);
    if case.converts {
        let other = if case.mode == X { S } else { X };
        a.request(convert(other), bench.now).expect("in order");
    }
    Some((bench, a))
}

/// Whether another host would get the lock on the drives of the second list, or on those of the LV
/// that are in it.
fn is_open(bench: &Bench, case: &Case) -> bool {
    let vg = case.lists[1];
    let lv: Vec<u32> = case.lv.iter().copied().filter(|drive| vg.contains(drive)).collect();
    let gets = |members: &[u32]| {
        let mut bench = Bench {
            drives: bench.drives.clone(),
            paths: bench.paths.clone(),
            now: bench.now,
            log: Vec::new(),
        };
        let others: Vec<u32> = vg.iter().copied().filter(|d| !members.contains(d)).collect();
        let mut other = lv_lock(9);
        take(&mut bench, &mut other, X, members, &others);
        believes(&bench, &other)
    };
    gets(vg) || (!lv.is_empty() && gets(&lv))
}

/// What goes wrong in the two leases after the second list.
fn faults(case: &Case) -> Vec<&'static str> {
    let Some((mut bench, mut a)) = begin(case) else { return Vec::new() };
    let mut faults = Vec::new();
    let was_open = is_open(&bench, case);
    let end = bench.now + LEASE * 2;
    let mut commands = 0;
    while bench.now < end {
        while let Some(command) = bench.step(&mut a) {
            commands += 1;
            if commands > 300 {
                return vec!["commands without end"];
            }
            if a.safe_until().is_none_or(|until| until <= bench.now + MARGIN) {
                faults.push("the kill command is run");
            }
            let unlocks = op(&command) == Some(MutexOp::Unlock);
            let asks = unlocks && !was_open && believes(&bench, &a);
            if asks && is_open(&bench, case) {
                faults.push("another host gets the lock");
            }
        }
        moves(&bench, &mut a);
        bench.now = bench.now + SECOND / 2;
        a.on_timer(bench.now);
    }
    if !believes(&bench, &a) {
        faults.push("the lock is lost");
    }
    faults.dedup();
    faults
}

/// Firmware whose REFRESH stores no mark has a limit: a record that names other drives than the
/// VG's is given back, to be written anew, and the drive is free until the next command.
#[test]
fn a_lock_is_kept_while_the_vgs_list_changes() {
    let mut found = BTreeMap::<_, Vec<Case>>::new();
    for case in cases() {
        for fault in faults(&case) {
            if fault != "another host gets the lock" || case.stores_marks {
                found.entry(fault).or_default().push(case);
            }
        }
    }
    for (fault, cases) in &found {
        println!("{fault} in {} cases, such as {:#?}", cases.len(), cases[0]);
    }
    assert!(found.is_empty());
}
