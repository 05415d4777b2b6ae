//! A host whose `/run` has no room left.

use super::{LEASE, Pair, for_every_release};
use anyhow::Result;
use std::time::Duration;
use testbed::{EAGAIN, Lvm2, Mode, wait_until};

for_every_release!(
    a_full_run_is_told_by_the_command_that_starts_a_vg,
    a_full_run_does_not_prevent_the_return_of_locks,
    a_full_run_does_not_keep_a_lock_exclusive
);

fn a_full_run_is_told_by_the_command_that_starts_a_vg(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob: _bob, lv } = Pair::new(lvm2, LEASE)?;
    // The global lockspace stays, and with it the library.
    alice.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.fill_run(true)?;
    let refused = alice.lvm(&["vgchange", "--lockstart", "vg"])?;
    assert!(refused.says("start failed"), "{refused}");
    assert!(alice.log().contains("No space left on device"), "the log says why");
    assert!(alice.log().contains("make room there"), "and what to do");
    alice.fill_run(false)?;
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, 0);
    Ok(())
}

/// The return of locks needs no new note.
fn a_full_run_does_not_prevent_the_return_of_locks(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, mut alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    assert_eq!(alice.client()?.lock_lv_for_good(&lv, Mode::Ex)?, 0);
    alice.set_active(&lv, true)?;
    alice.kill_lvmlockd()?;
    alice.fill_run(true)?;
    alice.start_lvmlockd()?;
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    wait_until(LEASE, "the lock to be given back", || {
        Ok((alice.client()?.lock_lv_for_good(&lv, Mode::Ex)? == 0).then_some(()))
    })?;
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Sh)?, EAGAIN);
    Ok(())
}

fn a_full_run_does_not_keep_a_lock_exclusive(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    let mut command = alice.client()?;
    assert_eq!(command.lock_lv_for_good(&lv, Mode::Ex)?, 0);
    alice.fill_run(true)?;
    assert_eq!(command.lock_lv_for_good(&lv, Mode::Sh)?, 0);
    assert_eq!(bob.client()?.lock_lv_for_good(&lv, Mode::Sh)?, 0);
    // Meanwhile no lock is granted that has to be noted.
    assert_eq!(bob.client()?.lock_lv_for_good(&lv, Mode::Un)?, 0);
    assert!(command.lock_lv_for_good(&lv, Mode::Ex)? < 0);
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, EAGAIN);
    alice.fill_run(false)?;
    wait_until(Duration::from_secs(10), "the note of the shared lock", || {
        let notes = alice.noted_locks()?;
        Ok(notes.iter().all(|note| note.contains("exclusive = false")).then_some(()))
    })?;
    Ok(())
}
