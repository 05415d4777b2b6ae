//! The information for the administrator.

use super::{LEASE, Pair, for_every_build};
use anyhow::Result;
use std::time::Duration;
use testbed::{Lvm2, Mode, wait_until};

/// Longer than the interval at which counters are exported.
const SHOWN: Duration = Duration::from_secs(20);

for_every_build!(a_healthy_lock_is_one_line);

fn a_healthy_lock_is_one_line(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob: _bob, lv } = Pair::new(lvm2, LEASE)?;
    let before = alice.log().len();
    let mut client = alice.client()?;
    for mode in [Mode::Ex, Mode::Un, Mode::Sh, Mode::Un] {
        assert_eq!(client.lock_lv(&lv, mode)?, 0);
    }
    let log = alice.log();
    let said: Vec<&str> = log[before..].lines().filter(|line| line.contains(" idm: ")).collect();
    let calls = ["lm_lock_idm", "lm_unlock_idm", "lm_lock_idm", "lm_unlock_idm"];
    assert_eq!(said.len(), calls.len(), "{said:#?}");
    for (line, call) in said.iter().zip(calls) {
        assert!(line.contains(call) && line.contains(&lv.uuid), "{line}");
        assert!(line.ends_with(" = 0"), "{line}");
    }
    Ok(())
}

#[test]
fn counters_are_shown_until_all_lockspaces_are_stopped() -> Result<()> {
    let Pair { testbed: _testbed, mut alice, bob: _bob, lv } = Pair::new(Lvm2::newest(), LEASE)?;
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, 0);
    let held = "lvmlockd_idm_locks_held{role=\"membership\",mode=\"shared\"} 1\n";
    let asked = "lvmlockd_idm_requests_total{request=\"acquire\",result=\"done\"} ";
    wait_until(SHOWN, "the counters", || {
        let text = alice.metrics();
        Ok((text.contains(held) && text.contains(asked)).then_some(()))
    })?;
    alice.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.lvmlockctl(&["--stop-lockspaces"])?;
    wait_until(SHOWN, "the counters to go", || Ok(alice.metrics().is_empty().then_some(())))?;
    alice.stop_lvmlockd()
}
