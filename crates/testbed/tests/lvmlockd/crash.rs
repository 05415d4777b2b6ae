//! Clients, daemons and hosts that die.

use super::{LEASE, Pair, for_every_build, for_every_release};
use anyhow::{Result, ensure};
use std::thread::sleep;
use std::time::{Duration, Instant};
use testbed::{EAGAIN, Host, Lv, Lvm2, Mode, Testbed, lease, wait_until};

/// Time limit of short waits.
const SOON: Duration = Duration::from_secs(10);

for_every_build!(a_client_that_leaves_in_the_middle_of_a_request_does_no_harm);
for_every_release!(
    an_orderly_stop_keeps_what_a_killed_lvmlockd_left,
    lost_notes_of_an_active_lv_stop_the_start_of_its_vg
);

/// With lvm2's own lvmlockd-idm.c this crashes lvmlockd.
fn a_client_that_leaves_in_the_middle_of_a_request_does_no_harm(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed, mut alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    let drives = testbed.drives();
    for mode in [Mode::Ex, Mode::Sh] {
        for number in 0..drives.count() {
            drives.delay(number, Duration::from_millis(500))?;
        }
        let before = drives.commands(0)?;
        let mut client = alice.client()?;
        client.send_lock_lv(&lv, mode)?;
        wait_until(SOON, "the request to reach the drives", || {
            Ok((drives.commands(0)? > before).then_some(()))
        })?;
        drop(client);
        for number in 0..drives.count() {
            drives.delay(number, Duration::ZERO)?;
        }
        // lvmlockd is alive, and has given up the lock that was granted to the client that left.
        let mut other = bob.client()?;
        wait_until(SOON, "the abandoned lock to be released", || {
            ensure!(alice.lvmlockd_runs()?, "lvmlockd has died");
            Ok((other.lock_lv(&lv, Mode::Ex)? == 0).then_some(()))
        })?;
        assert_eq!(other.lock_lv(&lv, Mode::Un)?, 0);
        assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, 0);
    }
    Ok(())
}

/// The host has another id afterwards, and nothing shows that the old one was its own.
fn lost_notes_of_an_active_lv_stop_the_start_of_its_vg(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, mut alice, bob: _bob, lv } = Pair::new(lvm2, LEASE)?;
    assert_eq!(alice.client()?.lock_lv_for_good(&lv, Mode::Ex)?, 0);
    alice.set_active(&lv, true)?;
    alice.kill_lvmlockd()?;
    alice.lose_notes()?;
    alice.start_lvmlockd()?;
    let refused = alice.lvm(&["vgchange", "--lockstart", "vg"])?;
    assert!(refused.says("VG vg start failed"), "{refused}");
    let named = format!("vg/data ({})", lv.uuid);
    assert!(alice.log().contains(&named), "the log names {named}");
    alice.set_active(&lv, false)?;
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    Ok(())
}

/// The unit that activates an LV at boot goes on until the earlier boot's lease has run out.
#[test]
fn a_rebooted_host_activates_its_lv_when_the_lease_of_the_earlier_boot_is_over() -> Result<()> {
    let lease = lease(Duration::from_secs(12));
    let Pair { testbed, alice, bob: _bob, lv: _lv } = Pair::new(Lvm2::newest(), lease)?;
    alice.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    let died = Instant::now();
    drop(alice);
    let alice = testbed.host("alice", Lvm2::newest())?;
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    let unit = include_str!("../../../../dist/idm-activate@.service");
    let started = alice.start_unit(unit, "vg/data")?.success()?;
    assert!(started.says("LV locked by other host"), "{started}");
    ensure!(died.elapsed() < 2 * lease, "it took {:?}", died.elapsed());
    assert!(alice.log().contains("The holder has the name of this host"), "the log says why");
    alice.lvm(&["lvchange", "-an", "vg/data"])?.success()?;
    Ok(())
}

#[test]
fn a_restarted_lvmlockd_gets_its_own_locks_back() -> Result<()> {
    let Pair { testbed: _testbed, mut alice, bob, lv } = Pair::new(Lvm2::newest(), LEASE)?;
    alice.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    alice.kill_lvmlockd()?;
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Sh)?, EAGAIN);

    alice.start_lvmlockd()?;
    is_given_back(&alice, &bob, &lv)
}

/// Core knows only of locks that were requested since it was started. So an orphan does not stop it
/// from ending, and core does not ask anybody about orphans.
fn an_orderly_stop_keeps_what_a_killed_lvmlockd_left(lvm2: Lvm2) -> Result<()> {
    let lease = lease(Duration::from_secs(12));
    let Pair { testbed: _testbed, mut alice, bob, lv } = Pair::new(lvm2, lease)?;
    alice.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    alice.set_active(&lv, true)?;
    alice.kill_lvmlockd()?;
    alice.start_lvmlockd()?;
    // Both without the VG, and with it started.
    for started in [false, true] {
        if started {
            alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
        }
        alice.stop_lvmlockd()?;
        alice.start_lvmlockd()?;
        let again = Instant::now();
        while again.elapsed() < lease * 3 / 2 {
            assert_eq!(bob.client()?.lock_lv(&lv, Mode::Sh)?, EAGAIN);
            sleep(lease / 8);
        }
    }
    is_given_back(&alice, &bob, &lv)
}

/// Fails unless alice, whose lvmlockd is new, gets its LV again and gives it up for bob.
fn is_given_back(alice: &Host, bob: &Host, lv: &Lv) -> Result<()> {
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    alice.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    alice.set_active(lv, true)?;
    assert_eq!(bob.client()?.lock_lv(lv, Mode::Sh)?, EAGAIN);
    // lvm deactivates before it unlocks.
    alice.set_active(lv, false)?;
    alice.lvm(&["lvchange", "-an", "vg/data"])?.success()?;
    assert_eq!(bob.client()?.lock_lv(lv, Mode::Ex)?, 0);
    Ok(())
}

/// The longest remaining lease of `host` on `lv`, on any drive.
fn lease_left(testbed: &Testbed, lv_uuid: &str, host: &str) -> Result<Duration> {
    let lv = lv_uuid.replace('-', "");
    let mut longest = Duration::ZERO;
    for number in 0..testbed.drives().count() {
        for record in testbed.drives().table(number)? {
            if record.resource.ends_with(&lv) && record.host.starts_with(host) {
                longest = longest.max(record.lease_left.unwrap_or_default());
            }
        }
    }
    Ok(longest)
}

#[test]
fn a_dead_hosts_lock_is_taken_over_after_its_lease_and_not_before() -> Result<()> {
    let lease = lease(Duration::from_secs(4));
    let Pair { testbed, alice, bob, lv } = Pair::new(Lvm2::newest(), lease)?;
    alice.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    drop(alice);
    let left = lease_left(&testbed, &lv.uuid, "alice")?;
    let died = Instant::now();
    ensure!(left > Duration::from_secs(1), "alice held nothing: {left:?}");
    let mut client = bob.client()?;
    wait_until(3 * lease, "the dead host's lock", || {
        Ok((client.lock_lv(&lv, Mode::Ex)? == 0).then_some(()))
    })?;
    let taken = died.elapsed();
    // A majority is two of the three drives, whose leases began at almost the same time; the table
    // shows tenths of a second.
    assert!(taken + Duration::from_millis(200) >= left, "{taken:?} of {left:?}");
    assert!(taken < left + Duration::from_secs(2), "{taken:?} of {left:?}");

    // The same machine after a reboot is another host: it has no claim to its former locks.
    let alice = testbed.host("alice", Lvm2::newest())?;
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Sh)?, EAGAIN);
    Ok(())
}

#[test]
fn a_frozen_host_does_not_believe_in_its_lapsed_lock() -> Result<()> {
    let lease = lease(Duration::from_secs(3));
    let Pair { testbed: _testbed, alice, bob, lv } = Pair::new(Lvm2::newest(), lease)?;
    alice.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    alice.freeze_lvmlockd()?;
    bob.lvm(&["vgs", "vg"])?.success()?;
    let take = ["lvchange", "-aey", "vg/data"];
    wait_until(4 * lease, "the frozen host's lock", || {
        Ok((bob.lvm(&take)?.code == 0).then_some(()))
    })?;
    alice.thaw_lvmlockd()?;
    // Its lvmlockd makes core give up the volume group, with the kill command.
    wait_until(SOON, "the frozen host to notice", || {
        Ok((alice.client()?.lock_lv(&lv, Mode::Sh)? == EVGKILLED).then_some(()))
    })?;
    // It has not taken the lock back, and has not disturbed the new holder.
    assert!(bob.lvm(&take)?.code == 0);
    Ok(())
}

/// lvmlockd's number for a lockspace that was killed.
const EVGKILLED: i32 = -217;
