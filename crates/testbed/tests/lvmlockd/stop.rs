//! `lvmlockctl --stop-lockspaces`.

use super::{LEASE, Pair, for_every_release};
use anyhow::Result;
use std::thread;
use std::time::{Duration, Instant};
use testbed::{EAGAIN, Lvm2, Mode};

for_every_release!(
    all_lockspaces_are_stopped_at_once_where_no_lv_is_locked,
    stopping_all_lockspaces_waits_in_core_for_lvs_locks
);

fn all_lockspaces_are_stopped_at_once_where_no_lv_is_locked(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob: _bob, lv: _lv } = Pair::new(lvm2, LEASE)?;
    let begin = Instant::now();
    alice.lvmlockctl(&["--stop-lockspaces"])?.success()?;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(alice.log().contains("volume group vg: stopped"));
    Ok(())
}

fn stopping_all_lockspaces_waits_in_core_for_lvs_locks(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    assert_eq!(alice.client()?.lock_lv_for_good(&lv, Mode::Ex)?, 0);
    let begin = Instant::now();
    // Without a wait, it does not report what is left.
    alice.lvmlockctl(&["--stop-lockspaces", "--wait", "0"])?.success()?;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    thread::scope(|scope| -> Result<()> {
        let stop = scope.spawn(|| alice.lvmlockctl(&["--stop-lockspaces"]));
        thread::sleep(Duration::from_secs(5));
        assert!(!stop.is_finished(), "core waits until no lock is held");
        // The library has not been asked, and keeps the lock.
        assert!(!alice.log().contains("volume group vg: stopped"));
        assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, EAGAIN);
        assert_eq!(alice.client()?.lock_lv_for_good(&lv, Mode::Un)?, 0);
        stop.join().expect("no panic")?.success()?;
        Ok(())
    })?;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(alice.log().contains("volume group vg: stopped"));
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, 0);
    Ok(())
}
