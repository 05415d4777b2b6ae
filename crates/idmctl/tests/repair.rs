//! `idmctl release` and `idmctl clear`: the locks of dead hosts are given back, and no others.

mod common;

use common::{LV, VG, World, lv, members, output, vg};
use idm_protocol::{Mode, ResourceId, Value};
use idmctl::repair::{carry_out, plan_clear, plan_release};
use idmctl::view::Standing;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

fn name_of_lv() -> String {
    format!("{VG}/{LV}")
}

/// Lets all leases end.
fn outlast(world: &World) {
    for name in &world.names {
        world.control(&format!("skip-time {name} 30000"));
    }
}

fn tables(world: &World) -> Vec<usize> {
    world.names.iter().map(|name| world.records(name).len()).collect()
}

#[test]
fn a_dry_run_says_what_is_at_stake_and_changes_nothing() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    outlast(&world);
    for args in [&["release", &name_of_lv()][..], &["clear", VG]] {
        let (code, text, error) = output(&world, args);
        assert_eq!(code, Some(0), "{error}");
        for part in ["destroys data", "was held by alpha", "dry run", "--yes --dead alpha"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(tables(&world), [1, 1, 1]);
    }
}

#[test]
fn it_is_refused_while_a_lease_runs_on_any_drive() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    world.control("skip-time d0 30000");
    world.control("skip-time d1 30000");
    for args in [&["release", &name_of_lv()][..], &["clear", VG]] {
        let args = [args, &["--yes", "--dead", "alpha"]].concat();
        let (code, _, error) = output(&world, &args);
        assert_eq!(code, Some(4));
        assert!(error.contains("the lease of alpha runs on d2"), "{error}");
        assert_eq!(tables(&world), [1, 1, 1]);
    }
}

#[test]
fn it_is_refused_unless_the_hosts_are_named() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Shared);
    world.peer("bravo", LEASE).take(lv(), Mode::Shared);
    outlast(&world);
    for dead in [&[][..], &["alpha"], &["alpha", "brav"], &["alpha", "bravo", "charlie"]] {
        let lock = name_of_lv();
        let mut args = vec!["release", lock.as_str(), "--yes"];
        args.extend(dead.iter().flat_map(|host| ["--dead", host]));
        let (code, _, error) = output(&world, &args);
        assert_eq!(code, Some(4));
        assert!(error.contains("--dead has to name alpha, bravo"), "{error}");
        assert_eq!(tables(&world), [2, 2, 2]);
    }
}

#[test]
fn a_dead_hosts_lock_is_given_back_and_free_for_others() {
    for profile in ["current", "rev2313", "r00d"] {
        let world = World::new(3, profile);
        world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
        outlast(&world);
        let args = ["release", &name_of_lv(), "--yes", "--dead", "alpha"];
        let (code, text, error) = output(&world, &args);
        assert_eq!(code, Some(0), "{profile}: {text}{error}");
        assert!(text.contains("given back on d0, d1, d2"), "{text}");
        assert_eq!(tables(&world), [0, 0, 0], "{profile}");
        world.peer("bravo", LEASE).take(lv(), Mode::Exclusive);
        let (code, _, error) = output(&world, &args);
        assert_eq!(code, Some(4));
        assert!(error.contains("the lease of bravo runs"), "{error}");
    }
}

#[test]
fn the_value_of_a_holder_that_died_is_not_left_to_be_believed() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(vg(), Mode::Exclusive).release(Value::new(2_000_000));
    world.peer("alpha", LEASE).take(vg(), Mode::Exclusive);
    assert!(world.view().locks[0].value.is_some());
    outlast(&world);
    let (code, text, error) = output(&world, &["release", VG, "--yes", "--dead", "alpha"]);
    assert_eq!(code, Some(0), "{text}{error}");
    assert!(world.view().locks.iter().all(|lock| lock.value.is_none() && lock.holders.is_empty()));
}

#[test]
fn a_host_that_takes_the_lock_meanwhile_keeps_it() {
    let world = World::new(3, "current");
    let host = world.host();
    for mode in [Mode::Exclusive, Mode::Shared] {
        for name in &world.names {
            world.control(&format!("reset {name}"));
        }
        world.peer("alpha", LEASE).take(lv(), mode);
        outlast(&world);
        let (fleet, asked) = world.ask(&host);
        let mut plan = plan_release(&host, &world.view(), lv(), "lv").unwrap();
        let bravo = world.peer("bravo", LEASE);
        let held = bravo.take(lv(), mode);
        carry_out(&host, &mut plan, &fleet, &asked).unwrap();
        let why = plan.locks[0].refused.as_deref().unwrap();
        assert!(why.contains("held"), "{why}");
        let view = world.view();
        let holders = &view.locks[0].holders;
        let bravo = holders.iter().find(|it| it.host.name == "bravo").unwrap();
        assert_eq!((bravo.standing, bravo.live()), (Standing::Held, 3));
        assert!(holders.iter().all(|it| !it.host.name.starts_with("idmctl")), "{holders:?}");
        held.release(None);
    }
}

#[test]
fn all_that_a_volume_group_has_left_is_removed() {
    let world = World::new(3, "current");
    let (alpha, bravo) = (world.peer("alpha", LEASE), world.peer("bravo", LEASE));
    alpha.take(members(), Mode::Shared);
    bravo.take(members(), Mode::Shared);
    bravo.take(lv(), Mode::Exclusive);
    alpha.take(vg(), Mode::Exclusive);
    alpha.take(ResourceId::GLOBAL, Mode::Exclusive);
    outlast(&world);
    let args = ["clear", VG, "--yes", "--dead", "alpha", "--dead", "bravo"];
    let (code, text, error) = output(&world, &args);
    assert_eq!(code, Some(0), "{text}{error}");
    assert_eq!(text.matches("given back on d0, d1, d2").count(), 3, "{text}");
    let view = world.view();
    let names: Vec<&str> = view.locks.iter().map(|lock| lock.name.as_str()).collect();
    assert_eq!(names, ["global"], "no other volume group is touched");
}

#[test]
fn the_free_lock_of_a_volume_group_goes_only_if_the_group_was_removed() {
    let world = World::new(3, "current");
    // The last bit says that the volume group was removed.
    let values = [2_000_000, 2_000_001].map(|value| Value::new(value).unwrap());
    let removed: Vec<bool> =
        values.iter().map(|value| lvmlockd_idm::lock::published(*value).1).collect();
    for (value, removed) in values.into_iter().zip(removed) {
        world.peer("alpha", LEASE).take(vg(), Mode::Exclusive).release(Some(value));
        let (code, text, error) = output(&world, &["clear", VG, "--yes"]);
        assert_eq!(code, Some(if removed { 0 } else { 4 }), "{text}{error}");
        assert_eq!(tables(&world), if removed { [0, 0, 0] } else { [1, 1, 1] });
    }
}

#[test]
fn it_is_refused_where_a_lease_may_run_unseen() {
    let world = World::new(3, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    outlast(&world);
    let host = world.host();
    world.control("power d0 off");
    let plan = plan_clear(&host, &world.view(), vg(), "vg");
    assert!(plan.unwrap_err().to_string().contains("d0 did not answer"));
    world.control("power d1 off");
    let plan = plan_release(&host, &world.view(), lv(), "lv");
    assert!(plan.unwrap_err().to_string().contains("do not answer decide"));
    world.control("power d2 off");
    let plan = plan_release(&host, &world.view(), lv(), "lv");
    assert!(plan.unwrap_err().to_string().contains("d0, d1, d2 did not answer"));
}

#[test]
fn what_this_hosts_lvmlockd_uses_is_left_alone() {
    let world = World::new(3, "current");
    world.peer("here", LEASE).named_as(world.this_host).take(lv(), Mode::Exclusive);
    outlast(&world);
    world.start_vg("vg0", &["d0", "d1", "d2"]);
    let plan = plan_clear(&world.host(), &world.view(), vg(), "vg0");
    assert!(plan.unwrap_err().to_string().contains("is started on this host"));
    world.note_lock(&lv());
    let plan = plan_release(&world.host(), &world.view(), lv(), "vg0/lv");
    assert!(plan.unwrap_err().to_string().contains("has noted that it holds"));
}

#[test]
fn a_holder_that_counts_unknown_drives_is_left_to_others() {
    let mut world = World::new(4, "current");
    world.peer("alpha", LEASE).take(lv(), Mode::Exclusive);
    outlast(&world);
    let config = world.config.as_mut().unwrap();
    config.emulated.remove("d3");
    config.global_drives.pop();
    let plan = plan_release(&world.host(), &world.view(), lv(), "lv");
    assert!(plan.unwrap_err().to_string().contains("does not know"));
}
