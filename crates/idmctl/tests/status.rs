//! `idmctl status`: holders of locks, and remarks on them.

mod common;

use common::{LV, VG, World, lv, members, vg};
use idm_protocol::{Class, Mode, Record, ResourceId, Value};
use idmctl::fleet::wall_ms;
use idmctl::hosts;
use idmctl::output::short;
use idmctl::status::text;
use idmctl::view::{Holder, LockView, Maker, Set, Standing, View};
use std::fs;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

fn lock<'v>(view: &'v View, id: &ResourceId) -> &'v LockView {
    view.locks.iter().find(|lock| lock.is(id)).expect("the lock is shown")
}

fn only<'v>(view: &'v View, id: &ResourceId) -> &'v Holder {
    match lock(view, id).holders.as_slice() {
        [holder] => holder,
        other => panic!("{other:?}"),
    }
}

fn codes(view: &View) -> Vec<&str> {
    view.remarks.iter().map(|remark| remark.code).collect()
}

#[test]
fn the_holders_of_all_kinds_of_locks_are_named() {
    let world = World::new(3, "current");
    world.start_vg("vg0", &["d0", "d1", "d2"]);
    fs::create_dir(&world.places.backups).unwrap();
    let backup = format!(
        "vg0 {{\n\tid = \"{VG}\"\n\tlogical_volumes {{\n\t\tdata {{\n\t\t\tid = \"{LV}\"\n\t\t}}\n\
         \t}}\n}}\n"
    );
    fs::write(world.places.backups.join("vg0"), backup).unwrap();
    let (alpha, bravo) = (world.peer("alpha", LEASE), world.peer("bravo", LEASE));
    alpha.take(ResourceId::GLOBAL, Mode::Exclusive);
    alpha.take(vg(), Mode::Exclusive).release(Value::new(2_000_000));
    alpha.take(vg(), Mode::Shared);
    bravo.take(vg(), Mode::Shared);
    bravo.take(lv(), Mode::Exclusive);
    bravo.take(members(), Mode::Shared);
    let view = world.view();
    let names: Vec<&str> = view.locks.iter().map(|lock| lock.name.as_str()).collect();
    assert_eq!(names, ["global", "vg0", "vg0 (started)", "vg0/data"]);
    let global = only(&view, &ResourceId::GLOBAL);
    assert_eq!((global.host.name.as_str(), global.mode), ("alpha", "ex"));
    assert_eq!((global.standing, global.set, global.needs), (Standing::Held, Set::Known, Some(2)));
    let left = global.left_ms.unwrap();
    assert!((25_000..=30_000).contains(&left), "{left}");
    let shared: Vec<&str> =
        lock(&view, &vg()).holders.iter().map(|holder| holder.host.name.as_str()).collect();
    assert_eq!(shared, ["alpha", "bravo"]);
    let value = lock(&view, &vg()).value.as_ref().unwrap();
    assert_eq!((value.published_ms, value.removed, value.drives), (1000, false, 3));
    assert_eq!(only(&view, &lv()).host.name, "bravo");
    assert_eq!(view.remarks, []);
    let text = text(&view, 3000);
    for line in ["global", "vg0/data"] {
        let line = text.lines().find(|it| it.starts_with(line)).unwrap();
        assert!(line.contains("held") && line.contains(" 3/3 "), "{text}");
    }
    assert!(text.contains("written 2.0 s ago") && text.contains("Nothing is wrong."), "{text}");
}

#[test]
fn a_dead_hosts_lease_runs_out() {
    let world = World::new(3, "current");
    let alpha = world.peer("alpha", LEASE);
    alpha.take(lv(), Mode::Exclusive);
    let before = only(&world.view(), &lv()).left_ms.unwrap();
    for name in &world.names {
        world.control(&format!("skip-time {name} 30000"));
    }
    let view = world.view();
    assert!(before > 0);
    assert_eq!(only(&view, &lv()).standing, Standing::TimedOut);
    assert_eq!(only(&view, &lv()).left_ms, Some(0));
    assert_eq!(codes(&view), ["timed-out"]);
    let text = text(&view, 0);
    assert!(text.contains("over") && text.contains(&short(30_000)), "{text}");
}

#[test]
fn a_lease_that_is_over_on_most_drives_is_over() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    world.control("skip-time d0 30000");
    assert_eq!(only(&world.view(), &lv()).standing, Standing::Held);
    world.control("skip-time d1 30000");
    assert_eq!(only(&world.view(), &lv()).standing, Standing::TimedOut);
}

#[test]
fn too_few_drives_are_no_lock() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    world.control("reset d0");
    assert_eq!(only(&world.view(), &lv()).standing, Standing::Held);
    world.control("reset d1");
    let view = world.view();
    assert_eq!(only(&view, &lv()).standing, Standing::TooFewDrives);
    assert_eq!(codes(&view), ["too-few-drives"]);
    assert!(view.remarks[0].text.contains("on 1 of 3 drives and would need 2"), "{view:?}");
    assert!(text(&view, 0).contains(" 1/3 d2 "));
}

#[test]
fn what_silent_drives_have_is_left_open() {
    let mut world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    world.control("power d0 off");
    world.hang("d1");
    let view = world.view();
    assert_eq!(only(&view, &lv()).standing, Standing::Unclear);
    assert_eq!(codes(&view), ["unclear", "silent-drive", "silent-drive"]);
    assert_eq!(only(&view, &lv()).counts.as_ref().unwrap().len(), 3);
    world.control("hang d1 off");
}

#[test]
fn drives_that_are_not_known_here_are_told() {
    let mut world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    let config = world.config.as_mut().unwrap();
    config.emulated.remove("d2");
    config.global_drives.pop();
    let view = world.view();
    assert_eq!((only(&view, &lv()).set, only(&view, &lv()).needs), (Set::Foreign, None));
    assert_eq!(codes(&view), ["foreign-set"]);
}

#[test]
fn two_hosts_with_one_lock_are_an_alarm() {
    let world = World::new(6, "current");
    world.peer("alpha", LEASE).on(&["d0", "d1", "d2"]).take(lv(), Mode::Exclusive);
    world.peer("bravo", LEASE).on(&["d3", "d4", "d5"]).take(lv(), Mode::Exclusive);
    let view = world.view();
    let alarm = view.remarks.iter().find(|remark| remark.alarm).unwrap();
    assert_eq!(alarm.code, "two-holders");
    assert!(alarm.text.contains("alpha and bravo"), "{}", alarm.text);
}

#[test]
fn this_host_its_earlier_life_and_its_orphans_are_told_from_others() {
    let mut world = World::new(3, "current");
    world.peer("here", LEASE).named_as(world.this_host).take(vg(), Mode::Exclusive);
    let view = world.view();
    assert!(only(&view, &vg()).host.this_host);
    assert_eq!(view.remarks, []);
    world.stop_lvmlockd();
    assert_eq!(codes(&world.view()), ["orphaned"]);
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    world.peer(name.trim(), LEASE).take(lv(), Mode::Exclusive);
    let view = world.view();
    assert!(only(&view, &lv()).host.earlier_life);
    assert!(codes(&view).contains(&"earlier-life"));
}

#[test]
fn a_holder_that_has_died_is_told_before_its_lease_is_over() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(vg(), Mode::Exclusive);
    let host = world.host();
    let (fleet, asked) = world.ask(&host);
    let later = |ms| Maker::new(&host, &fleet, &asked, wall_ms() + ms).view(|_| true);
    assert_eq!(later(10_000).remarks, []);
    let view = later(20_000);
    assert_eq!(codes(&view), ["silent-holder"]);
    let left = format!("its lease ends in {}", short(only(&view, &vg()).left_ms.unwrap()));
    assert!(view.remarks[0].text.ends_with(&left), "{view:?}");
}

#[test]
fn a_drive_without_idm_is_no_silent_one() {
    let world = World::new(2, "current");
    // INQUIRY is answered with "no such page".
    world.control("fail d1 2 100 5/24/0");
    let view = world.view();
    assert_eq!(view.drives[1].state, "no-idm");
    assert_eq!(view.remarks, []);
    assert!(text(&view, 0).contains("1 of 1 drives with IDM answer: d0; 1 without IDM"));
}

#[test]
fn the_hosts_of_a_volume_group_are_counted() {
    let world = World::new(3, "current");
    world.start_vg("vg0", &["d0", "d1", "d2"]);
    world.peer("alpha", LEASE).take(members(), Mode::Shared);
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    world.peer("bravo", LEASE).take(vg(), Mode::Shared);
    world.peer("bravo", LEASE).take(ResourceId::GLOBAL, Mode::Exclusive);
    let rows = hosts::rows(&world.host(), &world.view());
    let seen: Vec<_> = rows
        .iter()
        .map(|it| (it.vg.as_str(), it.host.name.as_str(), it.started, it.exclusive, it.shared))
        .collect();
    let expected = [
        ("global", "bravo", false, 1, 0),
        ("vg0", "alpha", true, 1, 0),
        ("vg0", "bravo", false, 0, 1),
    ];
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert!(rows.iter().all(|row| row.alive));
    assert!(hosts::text(&rows).contains("alpha"));
}

#[test]
fn a_host_whose_name_begins_alike_is_another_one() {
    let world = World::new(1, "current");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let longer = format!("{}x", name.trim().chars().take(15).collect::<String>());
    let shorter: String = name.trim().chars().take(1).collect();
    for other in [longer, shorter] {
        world.peer(&other, LEASE).take(lv(), Mode::Exclusive);
        let holder = only(&world.view(), &lv()).host.clone();
        assert!(!holder.earlier_life || name.trim() == other, "{holder:?}");
        world.control("reset d0");
    }
}

#[test]
fn one_holder_of_unknown_drives_beside_another_is_no_alarm() {
    let mut world = World::new(4, "current");
    world.peer("alpha", LEASE).on(&["d0", "d3"]).take(lv(), Mode::Exclusive);
    world.peer("bravo", LEASE).on(&["d1", "d2"]).take(lv(), Mode::Exclusive);
    let config = world.config.as_mut().unwrap();
    config.emulated.remove("d3");
    config.global_drives.pop();
    let view = world.view();
    assert!(codes(&view).contains(&"two-records"), "{view:?}");
    assert!(view.remarks.iter().all(|remark| !remark.alarm));
}

#[test]
fn what_changes_on_this_host_is_looked_at_again() {
    let mut world = World::new(3, "current");
    world.peer("here", LEASE).named_as(world.this_host).take(vg(), Mode::Exclusive);
    let mut host = world.host();
    world.start_vg("vg0", &["d0", "d1", "d2"]);
    world.stop_lvmlockd();
    host.look_again();
    let (fleet, asked) = world.ask(&host);
    let view = Maker::new(&host, &fleet, &asked, wall_ms()).view(|_| true);
    assert_eq!(lock(&view, &vg()).name, "vg0");
    assert_eq!(codes(&view), ["orphaned"]);
}

/// Gives the records of a lock back to the drives, changed.
fn change(world: &World, mut edit: impl FnMut(&str, &mut Record)) {
    for name in &world.names {
        let mut record = world.records(name).pop().unwrap();
        edit(name, &mut record);
        world.control(&format!("reset {name}"));
        world.plant(name, record);
    }
}

#[test]
fn a_mode_that_differs_between_drives_is_told() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    change(&world, |name, record| {
        if name == "d1" {
            record.class = Class::Shared;
        }
    });
    let view = world.view();
    assert_eq!((only(&view, &lv()).mode, only(&view, &lv()).standing), ("mixed", Standing::Held));
    assert_eq!(codes(&view), ["mixed-modes"]);
}

#[test]
fn records_of_another_program_are_told() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    change(&world, |_, record| record.metadata = [0; 64]);
    let view = world.view();
    assert_eq!((only(&view, &lv()).set, only(&view, &lv()).needs), (Set::OlderStack, None));
    assert_eq!(codes(&view), ["older-stack"]);
}

#[test]
fn a_clock_that_differs_leaves_an_upper_bound() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    let host = world.host();
    let (fleet, asked) = world.ask(&host);
    // This host's clock is an hour behind.
    let view = Maker::new(&host, &fleet, &asked, wall_ms() - 3_600_000).view(|_| true);
    assert_eq!(only(&view, &lv()).left_ms, None);
    assert_eq!(codes(&view), ["clock"]);
    let text = text(&view, 0);
    assert!(text.contains("in the future") && text.contains("<= 30.0 s"), "{text}");
}
