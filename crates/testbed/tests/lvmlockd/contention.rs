//! The answers to two hosts that request the same lock.

use super::{LEASE, Pair, for_every_build, new_lv};
use anyhow::Result;
use std::thread;
use std::time::Duration;
use testbed::{EAGAIN, Lv, Lvm2, Mode, wait_until};

for_every_build!(an_lv_is_locked_shared_converted_and_released, the_vg_lock_and_its_value);

fn an_lv_is_locked_shared_converted_and_released(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    let exclusive = ["lvchange", "-aey", "vg/data"];
    let shared = ["lvchange", "-asy", "vg/data"];
    let release = ["lvchange", "-an", "vg/data"];

    // An exclusive lock is refused to the other host in every mode.
    alice.lvm(&exclusive)?.success()?;
    for command in [&exclusive, &shared] {
        let refused = bob.lvm(command)?;
        assert_eq!(refused.code, 5, "{refused}");
        assert!(refused.says("LV locked by other host: vg/data"), "{refused}");
    }
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, EAGAIN);
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Sh)?, EAGAIN);

    // After its release the other host gets it, and the first is refused.
    alice.lvm(&release)?.success()?;
    bob.lvm(&exclusive)?.success()?;
    assert!(alice.lvm(&exclusive)?.says("LV locked by other host: vg/data"));

    // After a conversion to shared both have it, and neither can have it exclusively.
    bob.lvm(&shared)?.success()?;
    alice.lvm(&shared)?.success()?;
    for host in [&alice, &bob] {
        let refused = host.lvm(&exclusive)?;
        assert!(refused.says("LV locked by other host: vg/data"), "{refused}");
    }

    // A refused conversion does not change the held lock.
    bob.lvm(&release)?.success()?;
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, EAGAIN);
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Sh)?, 0);

    // The last sharer can have it exclusively.
    alice.lvm(&exclusive)?.success()?;
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Sh)?, EAGAIN);
    alice.lvm(&release)?.success()?;
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, 0);
    Ok(())
}

fn the_vg_lock_and_its_value(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, .. } = Pair::new(lvm2, LEASE)?;
    bob.lvm(&new_lv("b"))?.success()?;

    // A host's own last change stays valid.
    let before = bob.invalidations("vg");
    bob.lvm(&["vgs", "vg"])?.success()?;
    assert_eq!(bob.invalidations("vg"), before);

    // A change by another host makes it invalid.
    alice.lvm(&new_lv("a"))?.success()?;
    bob.lvm(&["vgs", "vg"])?.success()?;
    assert_eq!(bob.invalidations("vg"), before + 1);

    // Simultaneous commands of two hosts wait for each other, and all succeed.
    thread::scope(|scope| -> Result<()> {
        let hosts = [(&alice, ["a1", "a2"]), (&bob, ["b1", "b2"])];
        let runs = hosts.map(|(host, names)| {
            scope.spawn(move || -> Result<()> {
                for name in names {
                    host.lvm(&new_lv(name))?.success()?;
                }
                Ok(())
            })
        });
        for run in runs {
            run.join().expect("no panic")?;
        }
        Ok(())
    })?;
    let lvs = bob.lvm(&["lvs", "--noheadings", "-o", "lv_name", "vg"])?.success()?;
    let names: Vec<&str> = lvs.stdout.split_whitespace().collect();
    assert_eq!(names, ["a", "a1", "a2", "b", "b1", "b2", "data"]);
    Ok(())
}

#[test]
fn a_held_global_lock_is_told_by_name() -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, .. } = Pair::new(Lvm2::newest(), LEASE)?;
    let mut holder = alice.client()?;
    assert_eq!(holder.lock_global(Mode::Ex)?, 0);
    // A command that takes the global lock and writes nothing to the disk.
    let command = ["vgremove", "--config=global/lvmlockd_lock_retries=0", "--yes", "vg"];
    let refused = bob.lvm(&command)?;
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.says("Global lock failed: held by other host"), "{refused}");
    assert_eq!(holder.lock_global(Mode::Un)?, 0);
    let mut other = bob.client()?;
    assert_eq!(other.lock_global(Mode::Ex)?, 0);
    Ok(())
}

#[test]
fn a_held_vg_lock_stops_writers_and_not_readers() -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, .. } = Pair::new(Lvm2::newest(), LEASE)?;
    let mut holder = alice.client()?;
    assert_eq!(holder.lock_vg("vg", Mode::Ex)?, 0);
    let once = "--config=global/lvmlockd_lock_retries=0";
    let refused = bob.lvm(&["lvcreate", once, "-an", "-Zn", "-L4m", "-nx", "vg"])?;
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.says("VG vg lock failed: held by other host"), "{refused}");
    let read = bob.lvm(&["vgs", once, "vg"])?.success()?;
    assert!(read.says("VG vg lock skipped: held by other host"), "{read}");
    assert!(read.says("Reading VG vg without a lock"), "{read}");
    assert_eq!(holder.lock_vg("vg", Mode::Un)?, 0);
    bob.lvm(&new_lv("x"))?.success()?;
    Ok(())
}

#[test]
fn of_two_hosts_at_once_never_both_get_an_lv() -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, lv } = Pair::new(Lvm2::newest(), LEASE)?;
    let mut granted = 0;
    for round in 0..50 {
        let mut clients = [alice.client()?, bob.client()?];
        let results: Vec<i32> = thread::scope(|scope| {
            let runs: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(|| client.lock_lv(&lv, Mode::Ex)))
                .collect();
            runs.into_iter().map(|run| run.join().expect("no panic")).collect::<Result<_>>()
        })?;
        let winners = results.iter().filter(|&&result| result == 0).count();
        assert!(winners < 2, "round {round}: both hosts hold the lock");
        assert!(
            results.iter().all(|result| [0, EAGAIN].contains(result)),
            "round {round}: {results:?}"
        );
        granted += winners;
        for (client, result) in clients.iter_mut().zip(&results) {
            if *result == 0 {
                assert_eq!(client.lock_lv(&lv, Mode::Un)?, 0);
            }
        }
    }
    // In a split vote both hosts may give way, but not often.
    assert!(granted > 40, "only {granted} of 50 rounds had a winner");
    Ok(())
}

/// While an LV is extended or moved, hosts name different drives for its lock.
#[test]
fn a_holder_that_counts_other_drives_is_seen() -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, lv } = Pair::new(Lvm2::newest(), LEASE)?;
    let on = |drives: &[usize]| Lv {
        pvs: drives.iter().map(|&drive| lv.pvs[drive].clone()).collect(),
        ..lv.clone()
    };
    let sets = [on(&[0]), on(&[1]), on(&[0, 2]), on(&[0, 1, 2])];
    for held in &sets {
        for asked in &sets {
            let mut holder = alice.client()?;
            // A host that is refused gets the answer at once, and then gives back the drives that
            // it got.
            wait_until(Duration::from_secs(5), "bob to have given back", || {
                let result = holder.lock_lv(held, Mode::Ex)?;
                assert!(result == 0 || result == EAGAIN, "{held:?}: {result}");
                Ok((result == 0).then_some(()))
            })?;
            for mode in [Mode::Ex, Mode::Sh] {
                let result = bob.client()?.lock_lv(asked, mode)?;
                assert_eq!(result, EAGAIN, "{held:?} is held, {asked:?} was granted");
            }
            assert_eq!(holder.lock_lv(held, Mode::Un)?, 0);
        }
    }
    Ok(())
}
