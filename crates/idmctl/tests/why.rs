//! `idmctl why` is graded: faults are made, and it has to name the cause of each.
//!
//! The table in docs/idmctl.md is made of them.

mod common;
mod page;

use common::{World, lv, members, vg};
use idm_protocol::reservation::ReservationType::{ExclusiveAccess, WriteExclusiveRegistrantsOnly};
use idm_protocol::{Mode, ResourceId, Value};
use idmctl::fleet::wall_ms;
use idmctl::host::Host;
use idmctl::why::{Answer, Effect, explain};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const EX: Mode = Mode::Exclusive;
const SH: Mode = Mode::Shared;
const LEASE: Duration = Duration::from_secs(60);
/// For holders that are to be seen not to refresh.
const BRIEF: Duration = Duration::from_secs(6);
const GLOBAL: ResourceId = ResourceId::GLOBAL;

/// A fault: what was done, the lock that is asked about, and the cause that has to be named.
struct Fault {
    what: &'static str,
    code: &'static str,
    make: fn(&mut World) -> ResourceId,
}

fn healthy(profile: &str) -> World {
    let world = World::new(3, profile);
    world.start_vg("vg0", &["d0", "d1", "d2"]);
    world.peer("here", LEASE).named_as(world.this_host).take(members(), SH);
    world.peer("alpha", LEASE).take(members(), SH);
    world
}

fn ask(world: &World, id: ResourceId) -> Answer {
    let host: Host = world.host();
    let (fleet, asked) = world.ask(&host);
    explain(&host, &fleet, &asked, id, wall_ms())
}

fn all_drives(world: &World, command: &str) {
    for name in &world.names {
        world.control(&command.replace("DRIVE", name));
    }
}

/// Fills drives with mutexes of one host, or with hosts of their own.
fn fill(world: &World, drives: &[&str], hosts: bool) {
    world.peer("x", LEASE).take(lv(), EX);
    let model = world.records("d0").into_iter().find(|record| record.resource == lv()).unwrap();
    all_drives(world, "reset DRIVE");
    for name in drives {
        for number in 0..if hosts { 32 } else { 128u8 } {
            let mut record = model.clone();
            let mut id = [b'x'; 64];
            id[40] = number;
            record.resource = ResourceId::from_bytes(id);
            if hosts {
                record.host = idm_protocol::HostId::from_bytes([number + 1; 32]);
            }
            world.plant(name, record);
        }
    }
}

/// Another host has the LV active, and its clock is wrong.
fn another_time(world: &World, by_ms: i64) {
    world.peer("bravo", LEASE).take(lv(), EX);
    let mut record = world.records("d0").pop().unwrap();
    record.modified_ms = record.modified_ms.wrapping_add_signed(by_ms);
    for name in &world.names {
        world.control(&format!("reset {name}"));
        world.plant_with_its_time(name, &record);
    }
}

fn small(world: &mut World) {
    *world = healthy("rev2313");
}

/// Holders, dead and alive.
const HOLDERS: [Fault; 22] = [
    Fault {
        what: "another host holds the VG's lock",
        code: "held",
        make: |world| {
            world.peer("bravo", LEASE).take(vg(), EX);
            vg()
        },
    },
    Fault {
        what: "another host has the LV active",
        code: "held",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), EX);
            lv()
        },
    },
    Fault {
        what: "another host holds the global lock",
        code: "held",
        make: |world| {
            world.peer("bravo", LEASE).take(GLOBAL, EX);
            GLOBAL
        },
    },
    Fault {
        what: "the same, and a drive hangs",
        code: "held",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), EX);
            world.hang("d2");
            lv()
        },
    },
    Fault {
        what: "the same on drives with other firmware",
        code: "held",
        make: |world| {
            *world = healthy("current+multiple-locked");
            world.peer("bravo", LEASE).take(lv(), EX);
            lv()
        },
    },
    Fault {
        what: "another host holds it with a lease of another length",
        code: "held",
        make: |world| {
            world.peer("bravo", LEASE / 2).take(lv(), EX);
            lv()
        },
    },
    Fault {
        what: "the same, and its clock is an hour behind",
        code: "held",
        make: |world| {
            another_time(world, -3_600_000);
            lv()
        },
    },
    Fault {
        what: "the same, and its clock is an hour ahead",
        code: "held",
        make: |world| {
            another_time(world, 3_600_000);
            lv()
        },
    },
    Fault {
        what: "another host shares the LV",
        code: "held-shared",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), SH);
            lv()
        },
    },
    Fault {
        what: "two other hosts share the LV",
        code: "held-shared",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), SH);
            world.peer("charlie", LEASE).take(lv(), SH);
            lv()
        },
    },
    Fault {
        what: "the holder has died, and its lease runs",
        code: "held-dying",
        make: |world| {
            world.peer("bravo", BRIEF).take(lv(), EX);
            thread::sleep(BRIEF / 2);
            lv()
        },
    },
    Fault {
        what: "the holder has died, and its lease is over",
        code: "timed-out",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), EX);
            all_drives(world, "skip-time DRIVE 60000");
            lv()
        },
    },
    Fault {
        what: "this host was booted while it held the lock",
        code: "earlier-life",
        make: |world| {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            world.peer(name.trim(), LEASE).take(lv(), EX);
            lv()
        },
    },
    Fault {
        what: "the holder runs another lock manager",
        code: "held-older-stack",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), EX);
            let mut record = world.records("d0").pop().unwrap();
            record.metadata = [0; 64];
            all_drives(world, "reset DRIVE");
            for name in ["d0", "d1", "d2"] {
                world.plant(name, record.clone());
            }
            lv()
        },
    },
    Fault {
        what: "the holder counts a drive that this host does not see",
        code: "held-other-set",
        make: |world| {
            *world = World::new(4, "current");
            world.start_vg("vg0", &["d0", "d1", "d2"]);
            world.peer("bravo", LEASE).take(vg(), EX);
            let config = world.config.as_mut().unwrap();
            config.emulated.remove("d3");
            config.global_drives.pop();
            vg()
        },
    },
    Fault {
        what: "the holder counts fewer drives: the VG was extended after it was started there",
        code: "held-other-drives",
        make: |world| {
            world.peer("bravo", LEASE).on(&["d0"]).take(vg(), EX);
            vg()
        },
    },
    Fault {
        what: "the LV's holder counts a drive that is none of the VG's",
        code: "held-other-drives",
        make: |world| {
            *world = World::new(4, "current");
            world.start_vg("vg0", &["d0", "d1", "d2"]);
            world.peer("bravo", LEASE).on(&["d2", "d3"]).take(lv(), EX);
            lv()
        },
    },
    Fault {
        what: "two hosts have got the lock on different drives",
        code: "two-holders",
        make: |world| {
            *world = World::new(6, "current");
            world.start_vg("vg0", &["d0", "d1", "d2", "d3", "d4", "d5"]);
            world.peer("bravo", LEASE).on(&["d0", "d1", "d2"]).take(lv(), EX);
            world.peer("charlie", LEASE).on(&["d3", "d4", "d5"]).take(lv(), EX);
            lv()
        },
    },
    Fault {
        what: "three hosts asked at once and have a drive each",
        code: "split",
        make: |world| {
            let mut records = Vec::new();
            for name in ["bravo", "charlie", "delta"] {
                all_drives(world, "reset DRIVE");
                world.peer(name, LEASE).take(lv(), EX);
                records.push(world.records("d0").pop().unwrap());
            }
            all_drives(world, "reset DRIVE");
            for (name, record) in ["d0", "d1", "d2"].into_iter().zip(records) {
                world.plant(name, record);
            }
            lv()
        },
    },
    Fault {
        what: "the holder's other drives do not answer",
        code: "unclear",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), EX);
            world.control("power d1 off");
            world.control("power d2 off");
            lv()
        },
    },
    Fault {
        what: "another host is removing the mutex from a full table",
        code: "clearing",
        make: |world| {
            world.peer("bravo", LEASE).take(lv(), EX);
            let mut record = world.records("d0").pop().unwrap();
            record.metadata = [0; 64];
            record.metadata[..15].copy_from_slice(b"lvmidm\0clearing");
            all_drives(world, "reset DRIVE");
            world.plant("d0", record);
            lv()
        },
    },
    Fault {
        what: "the removed VG's lock says so",
        code: "removed",
        make: |world| {
            let value = Value::new((wall_ms() * 1000) << 1 | 1);
            world.peer("bravo", LEASE).take(vg(), EX).release(value);
            vg()
        },
    },
];

/// Drives.
const DRIVES: [Fault; 18] = [
    Fault {
        what: "a drive is switched off",
        code: "one-silent",
        make: |world| {
            world.control("power d0 off");
            vg()
        },
    },
    Fault {
        what: "a drive hangs",
        code: "one-silent",
        make: |world| {
            world.hang("d1");
            vg()
        },
    },
    Fault {
        what: "two of three drives are switched off",
        code: "silent",
        make: |world| {
            world.control("power d0 off");
            world.control("power d1 off");
            vg()
        },
    },
    Fault {
        what: "two of three drives hang",
        code: "silent",
        make: |world| {
            world.hang("d0");
            world.hang("d2");
            lv()
        },
    },
    Fault {
        what: "all drives are switched off",
        code: "silent",
        make: |world| {
            all_drives(world, "power DRIVE off");
            vg()
        },
    },
    Fault {
        what: "two drives are too slow",
        code: "silent",
        make: |world| {
            world.control("delay d0 20000");
            world.patience = Duration::from_secs(2);
            world.control("delay d1 20000");
            vg()
        },
    },
    Fault {
        what: "two drives answer with hardware errors",
        code: "silent",
        make: |world| {
            world.control("fail d0 2 100 4/44/0");
            world.control("fail d1 2 100 4/44/0");
            vg()
        },
    },
    Fault {
        what: "two drives are busy all the time",
        code: "silent",
        make: |world| {
            world.control("fail d0 8 1000");
            world.control("fail d1 8 1000");
            vg()
        },
    },
    Fault {
        what: "two drives of the global lock are switched off",
        code: "silent",
        make: |world| {
            world.control("power d0 off");
            world.control("power d1 off");
            GLOBAL
        },
    },
    Fault {
        what: "a drive has no IDM",
        code: "one-no-idm",
        make: |world| {
            world.control("fail d0 2 100 5/24/0");
            vg()
        },
    },
    Fault {
        what: "two of three drives have no IDM",
        code: "no-idm",
        make: |world| {
            world.control("fail d0 2 100 5/24/0");
            world.control("fail d1 2 100 5/24/0");
            vg()
        },
    },
    Fault {
        what: "a PV of four is gone",
        code: "one-missing",
        make: |world| {
            world.start_vg("vg0", &["d0", "d1", "d2", "/dev/nonexistent"]);
            vg()
        },
    },
    Fault {
        what: "two PVs of three are gone",
        code: "missing",
        make: |world| {
            world.start_vg("vg0", &["d0", "/dev/nonexistent", "/dev/nonexistent-too"]);
            vg()
        },
    },
    Fault {
        what: "a PV is no drive that can have locks",
        code: "one-missing",
        make: |world| {
            world.start_vg("vg0", &["d0", "d1", "d2", "/dev/null"]);
            vg()
        },
    },
    Fault {
        what: "a drive of the global lock is gone",
        code: "one-missing",
        make: |world| {
            world.config.as_mut().unwrap().global_drives[2] = "/dev/nonexistent".to_owned();
            GLOBAL
        },
    },
    Fault {
        what: "the table of one drive is full",
        code: "one-full",
        make: |world| {
            small(world);
            fill(world, &["d1"], false);
            lv()
        },
    },
    Fault {
        what: "the tables of two drives are full",
        code: "full",
        make: |world| {
            small(world);
            fill(world, &["d0", "d1"], false);
            lv()
        },
    },
    Fault {
        what: "the tables of all drives have no room for another host",
        code: "full",
        make: |world| {
            small(world);
            fill(world, &["d0", "d1", "d2"], true);
            lv()
        },
    },
];

/// Starts the library, which takes and gives up the LV's lock; these drives do not answer its
/// UNLOCK.
fn unlock_unanswered(world: &mut World, drives: &[&str]) {
    *world = World::new(3, "current");
    world.start_library(LEASE);
    world.start_lockspace();
    world.request(lv(), EX).unwrap();
    give_up_unanswered(world, drives);
}

/// Gives up the LV's lock; these drives do not answer the UNLOCK.
fn give_up_unanswered(world: &World, drives: &[&str]) {
    // Most drives grant it. Until the last one has, the reply that is lost may be that to TRYLOCK.
    let has = |name: &String| world.records(name).iter().any(|record| record.resource == lv());
    eventually("the lock on all drives", || world.names.iter().all(has));
    thread::sleep(Duration::from_millis(200));
    for name in drives {
        world.control(&format!("lose-reply {name} 1"));
    }
    world.give_up();
    // A drive that loses its power before it has answered would be barred as well.
    let answers = |name: &&String| !drives.contains(&name.as_str());
    let has_any = || world.names.iter().filter(answers).any(has);
    eventually("the lock on none that answers", || !has_any());
    thread::sleep(Duration::from_millis(200));
}

/// A request that is refused because these drives are barred. One whose follow-up to the UNLOCK is
/// just under way is not asked by the first request, either, and is not known to be barred.
fn refused_by_bars(world: &World, drives: &[&str]) {
    eventually("the bars", || {
        world.request(lv(), EX).unwrap_err();
        let (host, now) = (world.host(), lvmlockd_idm::tools::now());
        let is_barred = |name: &&str| host.refusals.barred(&lv(), &world.identity(name), now);
        drives.iter().all(|name| is_barred(name).is_some())
    });
}

/// Starts the library with such a lease, and again after its death.
fn restarted(world: &mut World, lease: Duration) {
    *world = World::new(3, "current");
    world.start_library(lease);
    world.start_lockspace();
    world.request(vg(), EX).unwrap();
    world.give_up();
    world.start_library(lease);
}

/// The library loses the locks of the VG, whose drives come back too late.
fn killed(world: &mut World) {
    *world = World::new(3, "current");
    world.start_library(Duration::from_secs(6));
    world.start_lockspace();
    world.request(lv(), EX).unwrap();
    all_drives(world, "power DRIVE off");
    eventually("the VG is killed", || world.host().is_killed("vg0"));
    all_drives(world, "power DRIVE on");
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The library's own waits, with the library in that state.
const BARS: [Fault; 8] = [
    Fault {
        what: "two of three drives did not answer when the LV was deactivated here",
        code: "barred",
        make: |world| {
            unlock_unanswered(world, &["d0", "d2"]);
            refused_by_bars(world, &["d0", "d2"]);
            lv()
        },
    },
    Fault {
        what: "a drive did not answer when the LV was deactivated here, and another one is off",
        code: "silent",
        make: |world| {
            unlock_unanswered(world, &["d0"]);
            world.control("power d1 off");
            world.request(lv(), EX).unwrap_err();
            lv()
        },
    },
    Fault {
        what: "a drive did not answer when the LV was deactivated here",
        code: "one-barred",
        make: |world| {
            unlock_unanswered(world, &["d0"]);
            world.control("power d1 off");
            refused_by_bars(world, &["d0"]);
            world.control("power d1 on");
            lv()
        },
    },
    Fault {
        what: "two drives are reserved for other hosts, and refuse this one",
        code: "conflict",
        make: |world| {
            *world = World::new(3, "current+respects-reservations");
            world.start_library(LEASE);
            world.start_lockspace();
            world.reserve("d0", WriteExclusiveRegistrantsOnly);
            world.reserve("d1", WriteExclusiveRegistrantsOnly);
            world.request(lv(), EX).unwrap_err();
            lv()
        },
    },
    Fault {
        what: "two drives are reserved for other hosts, which alone may read them",
        code: "silent",
        make: |world| {
            *world = World::new(3, "current+respects-reservations");
            world.start_library(LEASE);
            world.start_lockspace();
            world.reserve("d0", ExclusiveAccess);
            world.reserve("d1", ExclusiveAccess);
            lv()
        },
    },
    Fault {
        what: "lvmlockd has died while the VG's lock was given up, and was just started again",
        code: "barred",
        make: |world| {
            restarted(world, LEASE);
            vg()
        },
    },
    Fault {
        what: "lvmlockd that had died while the VG's lock was given up runs for some seconds",
        code: "barred-briefly",
        make: |world| {
            restarted(world, 2 * LEASE / 5);
            thread::sleep(Duration::from_millis(2300));
            vg()
        },
    },
    Fault {
        what: "another host holds it, and lvmlockd was started again some seconds ago",
        code: "held",
        make: |world| {
            restarted(world, 2 * LEASE / 5);
            thread::sleep(Duration::from_millis(2300));
            world.peer("bravo", LEASE).take(vg(), EX);
            vg()
        },
    },
];

/// This host.
const HERE: [Fault; 12] = [
    Fault {
        what: "the configuration has a wrong key",
        code: "configuration",
        make: |world| {
            world.config = Err("lvmlockd-idm.conf: line 1: unknown field `leese_ms`".to_owned());
            vg()
        },
    },
    Fault {
        what: "lvmlockd does not run",
        code: "lvmlockd",
        make: |world| {
            world.stop_lvmlockd();
            vg()
        },
    },
    Fault {
        what: "lvmlockd is stopped, and takes connections all the same",
        code: "lvmlockd-hangs",
        make: |world| {
            let file = world.dir.path().join("state/metrics.prom");
            fs::write(&file, "lvmlockd_idm_lockspaces 1\n").unwrap();
            let old = SystemTime::now() - Duration::from_secs(20);
            fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
            vg()
        },
    },
    Fault {
        what: "the VG is not started",
        code: "lock-start",
        make: |world| {
            *world = World::new(3, "current");
            lv()
        },
    },
    Fault {
        what: "no drive carries the global lock",
        code: "no-global-drives",
        make: |world| {
            world.config.as_mut().unwrap().global_drives.clear();
            GLOBAL
        },
    },
    Fault {
        what: "lvmlockd has died with the LV active",
        code: "lvmlockd",
        make: |world| {
            world.peer("here", LEASE).named_as(world.this_host).take(lv(), EX);
            world.note_lock(&lv());
            world.stop_lvmlockd();
            lv()
        },
    },
    Fault {
        what: "this host holds the lock itself",
        code: "held-here",
        make: |world| {
            world.peer("here", LEASE).named_as(world.this_host).take(vg(), EX);
            world.note_lock(&vg());
            vg()
        },
    },
    Fault {
        what: "this host holds it, and lvmlockd hangs",
        code: "not-refreshed",
        make: |world| {
            world.peer("here", BRIEF).named_as(world.this_host).take(lv(), EX);
            world.note_lock(&lv());
            thread::sleep(BRIEF / 2);
            lv()
        },
    },
    Fault {
        what: "a record of this host is left, and no note",
        code: "not-noted",
        make: |world| {
            world.peer("here", LEASE).named_as(world.this_host).take(lv(), EX);
            lv()
        },
    },
    Fault {
        what: "the VG has lost its locks and was not dropped",
        code: "killed",
        make: |world| {
            killed(world);
            lv()
        },
    },
    Fault {
        what: "this host's clock is an hour behind",
        code: "clock",
        make: |world| {
            let value = Value::new(((wall_ms() + 3_600_000) * 1000) << 1);
            world.peer("bravo", LEASE).take(vg(), EX).release(value);
            vg()
        },
    },
    Fault {
        what: "another host holds the lock, and the VG is not started here",
        code: "lock-start",
        make: |world| {
            *world = World::new(3, "current");
            world.peer("bravo", LEASE).take(lv(), EX);
            lv()
        },
    },
];

fn faults() -> impl Iterator<Item = &'static Fault> {
    HOLDERS.iter().chain(&DRIVES).chain(&BARS).chain(&HERE)
}

/// The answers to all faults.
fn answers() -> Vec<(&'static Fault, Answer)> {
    thread::scope(|scope| {
        let begun: Vec<_> = faults()
            .map(|fault| {
                scope.spawn(move || {
                    let mut world = healthy("current");
                    let id = (fault.make)(&mut world);
                    let answer = ask(&world, id);
                    all_drives(&world, "hang DRIVE off");
                    all_drives(&world, "delay DRIVE 0");
                    (fault, answer)
                })
            })
            .collect();
        begun.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn the_cause_of_each_fault_is_named_and_the_page_tells_it() {
    let answers = answers();
    let wrong: Vec<_> = answers
        .iter()
        .filter(|(fault, answer)| answer.causes[0].code != fault.code)
        .map(|(fault, answer)| (fault.what, fault.code, answer))
        .collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), answers.len());
    let mut by_code: BTreeMap<&str, (Effect, Vec<&str>)> = BTreeMap::new();
    for (fault, answer) in &answers {
        let entry = by_code.entry(fault.code).or_insert((answer.causes[0].effect, Vec::new()));
        entry.1.push(fault.what);
    }
    let mut table = String::from("| cause | request | tested with these faults |\n|---|---|---|\n");
    for (code, (effect, found_by)) in by_code {
        let effect = match effect {
            Effect::Refused => "refused",
            Effect::Slow => "granted",
            Effect::Granted => unreachable!(),
        };
        writeln!(table, "| `{code}` | {effect} | {} |", found_by.join("; ")).unwrap();
    }
    page::compare("docs/idmctl.md", "causes", &table);
}

#[test]
fn healthy_locks_are_no_fault() {
    let worlds: Vec<World> =
        ["current", "rev2313", "r00d", "current+busy"].into_iter().map(healthy_alone).collect();
    let runs = 250;
    let mut times = Vec::new();
    for world in &worlds {
        for number in 0..runs {
            let id = [GLOBAL, vg(), lv()][number % 3];
            let begin = Instant::now();
            let answer = ask(world, id);
            assert_eq!(answer.causes[0].code, "free", "{answer:?}");
            assert_eq!(answer.causes.len(), 1);
            times.push(begin.elapsed());
        }
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(100), "{median:?}");
}

/// A host that is alone, on drives whose locks were used.
fn healthy_alone(profile: &str) -> World {
    let world = World::new(3, profile);
    world.start_vg("vg0", &["d0", "d1", "d2"]);
    let here = world.peer("here", LEASE).named_as(world.this_host);
    for id in [GLOBAL, vg()] {
        here.take(id, EX).release(Value::new((wall_ms() * 1000) << 1));
    }
    here.take(lv(), EX).release(None);
    here.take(members(), SH);
    world
}

#[test]
fn a_bar_that_is_over_is_no_cause() {
    let mut world = World::new(3, "current");
    // A drive is barred for a quarter of it, which has to be longer than a request waits.
    let lease = Duration::from_secs(28);
    world.start_library(lease);
    world.start_lockspace();
    world.request(lv(), EX).unwrap();
    give_up_unanswered(&world, &["d0", "d1", "d2"]);
    let refused = world.request(lv(), EX).unwrap_err().to_string();
    let answer = ask(&world, lv());
    assert_eq!(answer.causes[0].code, "barred", "{refused}: {answer:?}");
    // One whose follow-up is under way has not been asked, either.
    let barred = answer.text().matches(" is not asked for it for ").count();
    assert!((2..=3).contains(&barred), "{answer:?}");
    // The other locks are not concerned.
    assert_eq!(ask(&world, vg()).causes[0].code, "free");
    let begin = Instant::now();
    while let Err(error) = world.request(lv(), EX) {
        assert!(begin.elapsed() < lease, "{error}");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ask(&world, lv()).causes[0].code, "held-here");
    world.give_up();
    assert_eq!(ask(&world, lv()).causes[0].code, "free");
    // An lvmlockd that died while nothing was on its way leaves nothing, either.
    world.manager().end();
    world.start_library(lease);
    assert_eq!(ask(&world, vg()).causes[0].code, "free");
}

#[test]
fn a_refusal_is_told_until_the_lock_is_granted() {
    let mut world = World::new(3, "current");
    world.start_library(LEASE);
    world.start_lockspace();
    world.control("power d0 off");
    world.control("power d1 off");
    world.request(lv(), EX).unwrap_err();
    world.control("power d0 on");
    world.control("power d1 on");
    let answer = ask(&world, lv());
    let codes: Vec<&str> = answer.causes.iter().map(|cause| cause.code).collect();
    assert_eq!(codes, ["free"], "{answer:?}");
    let text = answer.text();
    assert!(text.contains(" s ago the answer here was: the lock of LV"), "{text}");
    assert!(text.contains("1 of 3 drives granted it, 2 are needed"), "{text}");
    eventually("the lock", || world.request(lv(), EX).is_ok());
    world.give_up();
    assert!(ask(&world, lv()).text().contains("lvmlockctl --dump"));
}

#[test]
fn what_the_library_cannot_do_is_told_beside_what_is_seen() {
    let mut world = World::new(3, "current");
    world.start_library(LEASE);
    world.start_lockspace();
    let locks = world.dir.path().join("state/locks");
    fs::remove_dir_all(&locks).unwrap();
    fs::write(&locks, "no folder").unwrap();
    let error = world.request(lv(), EX).unwrap_err().to_string();
    assert!(error.contains("cannot be noted"), "{error}");
    let text = ask(&world, lv()).text();
    assert!(text.contains(" ago the answer here was: ") && text.contains(&error), "{text}");
    // Beside a holder whose lease is over.
    world.peer("bravo", LEASE).take(lv(), EX);
    all_drives(&world, "skip-time DRIVE 60000");
    let answer = ask(&world, lv());
    let codes: Vec<&str> = answer.causes.iter().map(|cause| cause.code).collect();
    assert_eq!(codes, ["timed-out", "last-refusal"]);
    // What another host has now is a better answer.
    all_drives(&world, "reset DRIVE");
    world.peer("bravo", LEASE).take(lv(), EX);
    let answer = ask(&world, lv());
    let codes: Vec<&str> = answer.causes.iter().map(|cause| cause.code).collect();
    assert_eq!(codes, ["held"], "{answer:?}");
}

#[test]
fn a_vg_that_was_dropped_and_started_again_is_not_called_killed() {
    let mut world = World::new(3, "current");
    killed(&mut world);
    let answer = ask(&world, vg());
    assert_eq!(answer.causes[0].code, "killed", "{answer:?}");
    world.give_up();
    world.drop_lockspace();
    world.prepare_lockspace();
    world.start_lockspace();
    let exported = || {
        let file = world.dir.path().join("state/metrics.prom");
        fs::read_to_string(file).unwrap_or_default()
    };
    eventually("the export", || exported().contains("lockspace_killed{vg=\"vg0\"} 0"));
    assert!(exported().contains("kills_total 1"), "{}", exported());
    let codes: Vec<&str> = ask(&world, vg()).causes.iter().map(|cause| cause.code).collect();
    assert_eq!(codes, ["free"]);
}

#[test]
fn a_holder_with_another_clock_is_not_called_dead() {
    for by_ms in [-3_600_000, 3_600_000] {
        let world = healthy("current");
        another_time(&world, by_ms);
        let answer = ask(&world, lv());
        let codes: Vec<&str> = answer.causes.iter().map(|cause| cause.code).collect();
        assert_eq!(codes, ["held", "clock"], "{answer:?}");
        let text = answer.text();
        assert!(text.contains("its lease runs.") && text.contains("60.0 s at most"), "{text}");
    }
}

#[test]
fn the_answer_names_holder_lease_and_remedy() {
    let world = healthy("current");
    world.peer("bravo", LEASE / 2).take(lv(), EX);
    thread::sleep(Duration::from_millis(100));
    world.control("power d2 off");
    let text = ask(&world, lv()).text();
    for part in [
        "bravo holds it (exclusive)",
        "others can take it in 2",
        "lease_ms should be",
        "Also: ",
        "d2 does not answer",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
