//! Starting, stopping and removing volume groups.

use super::{LEASE, Pair, for_every_build, new_lv};
use anyhow::Result;
use std::fs;
use testbed::{EAGAIN, Lvm2, Mode};

for_every_build!(
    a_vg_is_stopped_and_started_again,
    a_vg_is_removed_only_when_others_have_stopped_it,
    a_vg_is_renamed_or_made_local_only_when_others_have_stopped_it
);

fn a_vg_is_stopped_and_started_again(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed, mut alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    alice.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    let refused = alice.lvm(&new_lv("x"))?;
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.says("Cannot access VG vg due to failed lock"), "{refused}");
    bob.lvm(&new_lv("b"))?.success()?;

    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    alice.lvm(&new_lv("a"))?.success()?;
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, 0);

    // With everything stopped, lvmlockd ends when it gets the signal, and the drives have no record
    // of this host.
    alice.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.lvmlockctl(&["--stop-lockspaces"])?;
    alice.stop_lvmlockd()?;
    for number in 0..testbed.drives().count() {
        for record in testbed.drives().table(number)? {
            assert!(
                !record.host.starts_with("alice") || record.lease_left.is_none(),
                "drive {number}: {record:?}"
            );
        }
    }
    Ok(())
}

/// lvmlockd's handlers run on its own threads, and signals reach it.
#[test]
fn threads_of_the_library_block_all_signals() -> Result<()> {
    let Pair { testbed: _testbed, alice, bob: _bob, lv } = Pair::new(Lvm2::newest(), LEASE)?;
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, 0);
    let mut ours = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", alice.lvmlockd_pid()?))? {
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_owned()
        };
        let name = field("Name:");
        if !name.starts_with("idm-") {
            continue;
        }
        let blocked = u64::from_str_radix(&field("SigBlk:"), 16)?;
        // Signals 1 to 31; SIGKILL and SIGSTOP cannot be blocked.
        let all = 0x7fff_ffff & !(1 << 8) & !(1 << 18);
        assert_eq!(blocked & all, all, "{name}: {blocked:x}");
        ours.push(name);
    }
    for name in ["idm-reactor", "idm-drive", "idm-metrics"] {
        assert!(ours.iter().any(|it| it == name), "no thread {name}: {ours:?}");
    }
    Ok(())
}

fn a_vg_is_removed_only_when_others_have_stopped_it(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed, alice, bob, .. } = Pair::new(lvm2, LEASE)?;
    alice.lvm(&["lvremove", "--yes", "vg/data"])?.success()?;
    let refused = alice.lvm(&["vgremove", "vg"])?;
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.says("not stopped on other hosts"), "{refused}");

    bob.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.lvm(&["vgremove", "vg"])?.success()?;

    // The disks are free for a new group with the same name, shared as the first was.
    let pvs = testbed.pvs();
    bob.lvm(&["vgcreate", "--shared", "--locktype", "idm", "vg", &pvs[0], &pvs[1], &pvs[2]])?
        .success()?;
    alice.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
    alice.lvm(&new_lv("again"))?.success()?;
    Ok(())
}

fn a_vg_is_renamed_or_made_local_only_when_others_have_stopped_it(lvm2: Lvm2) -> Result<()> {
    let Pair { testbed: _testbed, alice, bob, lv } = Pair::new(lvm2, LEASE)?;
    let rename = ["vgrename", "vg", "other"];
    let local = ["vgchange", "--yes", "--locktype", "none", "vg"];
    for command in [&rename[..], &local[..]] {
        // vgrename's exit status is nevertheless 0.
        let refused = alice.lvm(command)?;
        assert!(refused.says("not stopped on other hosts"), "{refused}");
    }
    // Nothing has changed.
    assert_eq!(alice.client()?.lock_lv(&lv, Mode::Ex)?, 0);

    bob.lvm(&["vgchange", "--lockstop", "vg"])?.success()?;
    alice.lvm(&rename)?.success()?;
    alice.lvm(&["vgchange", "--lockstart", "other"])?.success()?;
    bob.lvm(&["vgchange", "--lockstart", "other"])?.success()?;
    // The uuid is still the same, so the hosts exclude each other.
    let lv = alice.find_lv("other", "data", &lv.pvs)?;
    alice.lvm(&["lvchange", "-aey", "other/data"])?.success()?;
    assert_eq!(bob.client()?.lock_lv(&lv, Mode::Ex)?, EAGAIN);
    alice.lvm(&["lvchange", "-an", "other/data"])?.success()?;

    bob.lvm(&["vgchange", "--lockstop", "other"])?.success()?;
    alice.lvm(&["vgchange", "--yes", "--locktype", "none", "other"])?.success()?;
    Ok(())
}
