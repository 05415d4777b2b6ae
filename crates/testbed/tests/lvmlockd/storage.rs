//! Drives that fail.

use super::{LEASE, Pair};
use anyhow::Result;
use std::time::{Duration, Instant};
use testbed::{EAGAIN, ELOCKIO, Lvm2, Mode};

/// The longest time that a request may wait for drives, including the delay of a busy machine.
const BOUND: Duration = Duration::from_secs(7);

#[test]
fn without_a_majority_of_drives_there_is_no_lock() -> Result<()> {
    let Pair { testbed, alice, bob, lv } = Pair::new(Lvm2::newest(), LEASE)?;
    let drives = testbed.drives();
    for number in [0, 2] {
        drives.power(number, false)?;
    }
    let start = Instant::now();
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, ELOCKIO);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    let refused = alice.lvm(&["lvchange", "-aey", "vg/data"])?;
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.says("storage errors"), "{refused}");

    for number in [0, 2] {
        drives.power(number, true)?;
    }
    // The grant of the one drive that was left is given back.
    let mut client = bob.client()?;
    assert_eq!(client.lock_lv(&lv, Mode::Ex)?, 0);
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, EAGAIN);
    Ok(())
}

#[test]
fn drives_that_hang_are_given_up_in_time() -> Result<()> {
    let Pair { testbed, alice, lv, .. } = Pair::new(Lvm2::newest(), LEASE)?;
    for number in [0, 1] {
        testbed.drives().hang(number, true)?;
    }
    let start = Instant::now();
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, ELOCKIO);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn one_hanging_drive_of_three_does_not_slow_a_lock() -> Result<()> {
    let Pair { testbed, alice, bob, lv } = Pair::new(Lvm2::newest(), LEASE)?;
    testbed.drives().hang(1, true)?;
    let start = Instant::now();
    let mut client = alice.client()?;
    for _ in 0..5 {
        for mode in [Mode::Sh, Mode::Un, Mode::Ex] {
            assert_eq!(client.lock_lv(&lv, mode)?, 0);
        }
        assert_eq!(bob.client()?.lock_lv(&lv, Mode::Sh)?, EAGAIN);
        assert_eq!(client.lock_lv(&lv, Mode::Un)?, 0);
    }
    // 25 requests; a single one that waited for the drive would take seconds.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn one_drive_less_changes_nothing() -> Result<()> {
    let Pair { testbed, alice, bob, .. } = Pair::new(Lvm2::newest(), LEASE)?;
    testbed.drives().power(0, false)?;
    alice.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    assert!(bob.lvm(&["lvchange", "-aey", "vg/data"])?.says("LV locked by other host"));
    // A drive that comes back does not know the lock, but the lock is still held.
    testbed.drives().power(0, true)?;
    assert!(bob.lvm(&["lvchange", "-aey", "vg/data"])?.says("LV locked by other host"));
    alice.lvm(&["lvchange", "-an", "vg/data"])?.success()?;
    bob.lvm(&["lvchange", "-aey", "vg/data"])?.success()?;
    Ok(())
}
