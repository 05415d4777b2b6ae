//! Starting, stopping and removing volume groups.

use super::{LEASE, Pair, for_every_build, new_lv};
use anyhow::Result;
use testbed::{Lvm2, Mode};

for_every_build!(
    a_vg_is_stopped_and_started_again,
    a_vg_is_removed_only_when_others_have_stopped_it
);

fn a_vg_is_stopped_and_started_again(lvm2: Lvm2) -> Result<()> {
    let Pair { lab, mut alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    alice.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    let refused = alice.lvm(&new_lv("x"))?;
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.says("Cannot access VG vg due to failed lock"), "{refused}");
    bob.lvm(&new_lv("b"))?.success()?;

    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    alice.lvm(&new_lv("a"))?.success()?;
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, 0);

    // Everything stopped, lvmlockd ends when it is told to, and nothing is left on the drives
    // under this host's name.
    alice.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.lvmlockctl(&["--stop-lockspaces"])?;
    alice.stop_lvmlockd()?;
    for number in 0..lab.drives().count() {
        for record in lab.drives().table(number)? {
            assert!(
                !record.host.starts_with("alice") || record.lease_left.is_none(),
                "drive {number}: {record:?}"
            );
        }
    }
    Ok(())
}

fn a_vg_is_removed_only_when_others_have_stopped_it(lvm2: Lvm2) -> Result<()> {
    let Pair { lab, alice, bob, .. } = Pair::new(lvm2, LEASE)?;
    alice.lvm(&["lvremove", "--yes", "vg/data"])?.success()?;
    let refused = alice.lvm(&["vgremove", "vg"])?;
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.says("not stopped on other hosts"), "{refused}");

    bob.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.lvm(&["vgremove", "vg"])?.success()?;

    // The disks are free for a new group of the same name, shared as the first was.
    let pvs = lab.pvs();
    bob.lvm(&["vgcreate", "--shared", "--locktype", "idm", "vg", &pvs[0], &pvs[1], &pvs[2]])?
        .success()?;
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    alice.lvm(&new_lv("again"))?.success()?;
    Ok(())
}
